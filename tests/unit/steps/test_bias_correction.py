"""Bias correction: the mean error of every product on the calibration data is gone, and nothing else has changed."""

import numpy as np
import pytest
import tiny_towers

from compress.core import names
from compress.models.treatment import StaticInt8
from compress.steps.quantize import _bias
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.emitter import emit, weight_matrix
from compress.targets.graph.session import open_session

RNG = np.random.default_rng(3)


def context():
    return Context(lambda kind: tiny_towers.feeds(kind, 3))


def applied(encoder, use, **options):
    method = names.load("compress.steps", use)
    return method.apply(encoder, method.Spec(**options), context())


def test_the_formula_is_the_mean_of_the_errors():
    weight, rounded = RNG.normal(size=(5, 7)), RNG.normal(size=(5, 7))
    inputs = RNG.normal(size=(50, 7)) + 1
    seen = np.round(inputs)
    expected = np.mean([weight @ x - rounded @ y for x, y in zip(inputs, seen, strict=True)], 0)
    found = _bias.correction(weight, inputs.mean(0), rounded, seen.mean(0))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("use", ["quantize.int4_rtn", "quantize.int8_static"])
def test_a_sites_mean_output_is_that_of_the_float_tower(tiny_encoder, use):
    """Only fc1 is treated, so that its inputs are those of the float tower: the check needs no formula."""
    options = {"include": ("mlp.fc1",), "towers": ("vision",)}
    means = {}
    for key, extra in (("plain", {}), ("corrected", {"bias_correction": True})):
        tower = tiny_encoder.towers["vision"]
        tower.treatments.clear()
        applied(tiny_encoder, use, **options, **extra)
        means[key] = _mean(emit(tower))
    tower.treatments.clear()
    before = _mean(emit(tower))
    lost = {key: np.abs(mean - before).max() for key, mean in means.items()}
    assert lost["plain"] > 1e-4
    assert lost["corrected"] < 1e-5


def _mean(graph):
    """Mean over rows of what comes out of fc1 with its bias, (72,)."""
    graph.graph.output.add(name="fc1")
    session = open_session(graph)
    rows = [session.run(["fc1"], feed)[0].reshape(-1, tiny_towers.INNER) for feed in tiny_towers.feeds("vision", 3)]
    return np.concatenate(rows).astype(np.float64).mean(0)


def test_no_operator_is_added_where_there_is_a_bias_and_one_where_there_is_none(tiny_encoder):
    applied(tiny_encoder, "quantize.int8_static")
    plain = {kind: onnxruntime_cpu.fused(tower) for kind, tower in tiny_encoder.towers.items()}
    applied(tiny_encoder, "quantize.int8_static", bias_correction=True)
    for kind, tower in tiny_encoder.towers.items():
        fused = onnxruntime_cpu.fused(tower)
        ops = [node.op_type for node in fused.graph.node]
        before = [node.op_type for node in plain[kind].graph.node]
        assert ops.count("MatMulIntegerToFloat") == before.count("MatMulIntegerToFloat") > 0
        # the projection is the only product without a bias; its correction becomes the kernel's
        assert ops.count("Add") == before.count("Add")
        (projection,) = (node for node in fused.graph.node if "projection.weight_q" in node.input)
        assert len(projection.input) == 7
        assert projection.input[6]


def test_the_report_says_how_far_biases_moved_and_what_was_skipped(tiny_encoder):
    options = {"include": ("embedding", "mlp.fc1"), "towers": ("text",)}
    report = applied(tiny_encoder, "quantize.int8_rtn", bias_correction=True, **options)
    told = {row.role: row.treatment for row in report.rows}
    assert "bias moved by up to" in told["mlp.fc1"]
    assert "a table has no bias" in told["embedding"]
    assert "1 tables skipped" in report.summary or "1 table skipped" in report.summary


def test_without_data_it_is_refused(tiny_encoder):
    method = names.load("compress.steps", "quantize.int4_rtn")
    with pytest.raises(Exception, match="needs calibration data"):
        method.apply(tiny_encoder, method.Spec(bias_correction=True), Context())


def test_the_rounded_inputs_are_those_of_the_runtime(tiny_encoder):
    """An input scale that clips nearly everything: the correction has to make up for the clipping as well."""
    applied(tiny_encoder, "quantize.int8_static", include=("mlp.fc2",), towers=("vision",))
    tower = tiny_encoder.towers["vision"]
    (name,) = tower.treatments
    held = tower.treatments[name]
    small = StaticInt8(held.codes, held.scales, held.input_scale / 50)
    tower.treatments[name] = small
    site = tower.site(name)
    _bias._correct(tower, [site], context())
    with_clip = tower.treatments[name].correction
    mean = _bias.watch(tower, [site], context(), _bias.Mean)[name].mean
    without = weight_matrix(tower, site).astype(np.float64) @ mean - _bias.restored(small).astype(np.float64) @ mean
    assert np.abs(with_clip).max() > 20 * np.abs(without).max()
