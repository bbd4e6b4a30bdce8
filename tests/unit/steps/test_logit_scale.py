"""The logit scale: refitted by cross-entropy, better calibrated on pairs it has not seen, and no rank moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_towers

from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.items import Items
from compress.pipeline.calibration import Calibration
from compress.steps.calibrate import _scale, logit_scale
from compress.steps.quantize import int8_rtn
from compress.steps.step import Context, StepReport, scaled
from compress.targets import onnxruntime_cpu

RNG = np.random.default_rng(0)
COUNT = 60


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def feeds(kind):
    """As many images as texts, each of them different."""
    rng = np.random.default_rng(9)
    for _ in range(COUNT // 10):
        if kind == "vision":
            yield {"pixel_values": rng.normal(size=(10, 3, tiny_towers.SIDE, tiny_towers.SIDE)).astype(np.float32)}
        else:
            yield {"input_ids": rng.integers(0, tiny_towers.VOCABULARY, (10, 7))}


def context(**changes):
    return Context(feeds, pairs=lambda: tuple((at,) for at in range(COUNT)), **changes)


def test_the_loss_by_hand():
    found = np.array([[1.0, 0.0], [0.0, 1.0]])
    wanted = _scale.targets([(0,), (1,)], 2)
    assert _scale.loss(1.0, found, wanted) == pytest.approx(np.log(1 + np.exp(-1)))
    shared = _scale.targets([(0, 1), (1,)], 2)
    np.testing.assert_array_equal(shared[0], [[0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(shared[1], [[1, 0], [0.5, 0.5]])


def test_the_scale_that_made_the_answers_is_found_again():
    """Answers drawn with a known scale: another scale explains them worse."""
    found = RNG.uniform(-1, 1, (400, 40))
    drawn = [int(RNG.choice(40, p=row)) for row in _scale.probabilities(7.0 * found)]
    wanted = np.eye(40)[drawn]
    one_way = min(np.linspace(4, 12, 161), key=lambda scale: _scale._cross_entropy(scale * found, wanted))
    assert one_way == pytest.approx(7.0, abs=1.0)


def test_the_reference_is_matched_exactly_where_nothing_changed():
    found = RNG.uniform(-1, 1, (80, 50))
    wanted = _scale.probabilities(12.0 * found), _scale.probabilities(12.0 * found.T)
    assert _scale.fit(found, wanted, 40.0) == pytest.approx(12.0, rel=1e-3)
    shrunk = 0.8 * found  # what compression does to cosines
    assert _scale.fit(shrunk, wanted, 12.0) == pytest.approx(15.0, rel=1e-3)


def test_no_scale_far_away_is_taken():
    found = np.eye(30)  # every pair told apart: the larger the scale, the better
    assert _scale.fit(found, _scale.targets([(at,) for at in range(30)], 30), 10.0) is None


def test_calibration_error_by_hand():
    found = np.array([[1.0, 0.0]] * 4)
    right = np.array([[True, False]] * 3 + [[False, True]])
    sure = 1 / (1 + np.exp(-2.0))
    assert _scale.calibration_error(2.0, found, right) == pytest.approx(abs(0.75 - sure))


def test_where_nothing_was_treated_nothing_moves(tiny_encoder):
    wrong = replace(tiny_encoder, logit_scale=10.0)
    report = logit_scale.apply(wrong, logit_scale.Spec(to="reference"), context())
    assert report.logit_scale == pytest.approx(10.0, rel=0.02), "nothing was treated: nothing to mend"
    assert "expected calibration error" in report.summary


def test_no_rank_moves_and_no_weight(tiny_encoder, tmp_path):
    int8_rtn.apply(tiny_encoder, int8_rtn.Spec(), Context())
    plain = tmp_path / "plain"
    plain.mkdir()
    onnxruntime_cpu.export(tiny_encoder, plain)
    report = logit_scale.apply(tiny_encoder, logit_scale.Spec(to="reference"), context())
    changed = scaled(tiny_encoder, [report, StepReport("quantize.x", "", ())])
    again = tmp_path / "again"
    again.mkdir()
    files = onnxruntime_cpu.export(changed, again)
    assert all(path.read_bytes() == (plain / path.relative_to(again)).read_bytes() for path in files.values())
    before, after = runtime.read(plain), runtime.read(again)
    assert after.logit_scale == report.logit_scale != before.logit_scale
    assert after.model_copy(update={"logit_scale": before.logit_scale}) == before
    cosines = unit(RNG.normal(size=(40, 9))) @ unit(RNG.normal(size=(50, 9))).T
    orders = [np.argsort(-_scale.probabilities(told.logit_scale * cosines), 1) for told in (before, after)]
    np.testing.assert_array_equal(*orders)


def test_the_last_step_that_found_a_scale_counts(tiny_encoder):
    reports = [
        StepReport("a", "", (), logit_scale=3.0),
        StepReport("b", "", (), logit_scale=4.0),
        StepReport("c", "", ()),
    ]
    assert scaled(tiny_encoder, reports).logit_scale == 4.0
    assert scaled(tiny_encoder, reports[2:]) is tiny_encoder


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ({"towers": ("vision",)}, {}, "both towers"),
        ({"include": ("mlp.fc1",)}, {}, "both towers"),
        ({}, {"pairs": None}, "calibration data"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_encoder, spec, changes, message):
    with pytest.raises(UsageError, match=message):
        logit_scale.apply(tiny_encoder, logit_scale.Spec(**spec), replace(context(), **changes))


def test_a_model_without_a_scale_is_refused(tiny_encoder):
    with pytest.raises(UsageError, match="no logit scale"):
        logit_scale.apply(replace(tiny_encoder, logit_scale=None), logit_scale.Spec(), context())


def test_pairs_are_places_among_the_texts_that_are_fed():
    told = (("a", "b"), ("b",), ("c", "c"), ())
    items = Items(("1", "2", "3", "4"), (), told, ((),) * 4, {}, "")
    assert Calibration(items, Path()).pairs() == ((0, 1), (1,), (2,), ())
