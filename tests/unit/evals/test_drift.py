"""Score drift: calibration error by hand, a second implementation of the rank correlation, answers that are none."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from compress.evals import drift

# four items, two classes, scale 1: logit gaps that make the best class 0.9, 0.9, 0.6 and 0.6 sure
GAPS = np.log(np.array([9.0, 9.0, 1.5, 1.5]))
SCORES = np.column_stack([GAPS, np.zeros(4)])
LABELS = np.array([0, 1, 0, 0])


def test_the_calibration_error_by_hand():
    """Bin of 0.9: one of two right, gap 0.4. Bin of 0.6: both right, gap 0.4. Each holds half of the items."""
    found = drift.answers(SCORES, 1.0, LABELS)
    np.testing.assert_allclose(found.confidence, [0.9, 0.9, 0.6, 0.6])
    assert found.right.tolist() == [1, 0, 1, 1]
    assert drift.calibration_error(found).value == pytest.approx(0.4)


def test_a_scale_that_is_lost_moves_the_confidence_and_not_the_answers():
    """Scale 0: every class is as likely, 0.5; the error becomes |0.75 - 0.5|, the confidence moves by 0.4 and 0.1."""
    before, after = drift.answers(SCORES, 1.0, LABELS), drift.answers(SCORES, 1e-9, LABELS)
    assert after.right.tolist() == before.right.tolist()
    assert drift.confidence_drift(before, after).value == pytest.approx(0.25)
    assert drift.calibration_drift(before, after).value == pytest.approx(0.4 - 0.25)


def test_the_same_model_does_not_drift():
    found = drift.answers(SCORES, 1.0, LABELS)
    for score in (drift.calibration_drift(found, found), drift.confidence_drift(found, found)):
        assert (score.value, score.low, score.high) == (0, 0, 0)


@pytest.mark.parametrize("broken", [np.full((4, 2), np.nan), np.zeros((4, 2)), np.full((4, 2), 0.3)])
def test_no_answer_is_the_worst(broken):
    before, after = drift.answers(SCORES, 1.0, LABELS), drift.answers(broken, 1.0, LABELS)
    assert not after.right.any()
    assert drift.calibration_error(after).value == 1
    assert drift.calibration_drift(before, after).value == 1
    assert drift.confidence_drift(before, after).value == 1
    assert drift.rank_correlations(SCORES, broken).tolist() == [-1] * 4


def test_one_item_without_an_answer_counts_whole():
    scores = SCORES.copy()
    scores[3] = np.nan
    before, after = drift.answers(SCORES, 1.0, LABELS), drift.answers(scores, 1.0, LABELS)
    assert drift.calibration_drift(before, after).value == pytest.approx(0.25)
    assert drift.confidence_drift(before, after).value == pytest.approx(0.25)


def test_the_interval_holds_the_true_drift():
    """Confidence 0.8 where 0.8 are right, then 0.95: the true drift is 0.15."""
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) > 0.8).astype(np.int64)
    old, new = (np.column_stack([np.full(3000, np.log(sure / (1 - sure))), np.zeros(3000)]) for sure in (0.8, 0.95))
    found = drift.calibration_drift(drift.answers(old, 1.0, labels), drift.answers(new, 1.0, labels))
    assert found.low < 0.15 < found.high
    assert found.high - found.low < 0.05


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(30, 11))
    after = before + 0.5 * rng.normal(size=(30, 11))
    after[:, 3] = after[:, 4]
    expected = [spearmanr(*pair).statistic for pair in zip(before, after, strict=True)]
    np.testing.assert_allclose(drift.rank_correlations(before, after), expected)
