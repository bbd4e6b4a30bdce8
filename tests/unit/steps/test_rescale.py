"""Inputs with an outlier channel: the graph goes on saying the same, and 8 bits lose less."""

import numpy as np
import pytest
import tiny_towers
from onnx import helper, numpy_helper

from compress.models.graph import array, initializers
from compress.models.tower import copied
from compress.models.treatment import StaticInt8
from compress.steps.quantize import _rescale, _smoothing
from compress.steps.quantize.int8_static import Spec, apply
from compress.steps.step import Context
from compress.targets.graph.emitter import emit, weight_matrix
from compress.targets.graph.session import open_session

CONTEXT = Context(tiny_towers.feeds)


def embeddings(graph, kind="vision"):
    (feed,) = tiny_towers.feeds(kind, 1)
    return open_session(graph).run(None, feed)[0]


def sites(tower, role):
    return [site for site in tower.sites if site.role == role]


def loud(tower, name="norm2", channel=3, factor=60.0):
    """Make one channel of a LayerNormalization loud, and the weights that read it quiet: the answer stays."""
    held = initializers(tower.graph)
    readers = {"norm1": ("q.weight", "k.weight", "v.weight"), "norm2": ("fc1.weight",)}[name]
    for each, by in ((f"{name}.scale", factor), (f"{name}.bias", factor), *((told, 1 / factor) for told in readers)):
        values = array(held[each]).copy()
        values[channel] *= by
        held[each].CopyFrom(numpy_helper.from_array(values, each))


def as_residual(tower, value="norm2"):
    """Let something else read a value too, as the residual of a post-norm block does."""
    tower.graph.graph.node.append(helper.make_node("Identity", [value], ["kept"], name="residual"))
    tower.graph.graph.output.append(helper.make_tensor_value_info("kept", 1, None))


@pytest.mark.parametrize("role", ["attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection"])
def test_the_graph_goes_on_saying_the_same(tiny_encoder, role):
    tower = tiny_encoder.towers["vision"]
    before, group = embeddings(tower.graph), sites(tower, role)
    weights = [weight_matrix(tower, site).copy() for site in group]
    scales = np.exp(np.random.default_rng(0).normal(size=weights[0].shape[1])).astype(np.float32)
    assert _rescale.possible(tower, group)
    _rescale.rescale(tower, group, scales)
    made = [node for node in tower.graph.graph.node if node.op_type == "Mul"]
    assert len(made) == 1
    assert all(node.input[0] == made[0].output[0] for node in tower.graph.graph.node if node.name in
               {site.node for site in group})  # fmt: skip
    for site, weight in zip(group, weights, strict=True):
        np.testing.assert_allclose(weight_matrix(tower, site), weight * scales, rtol=1e-6)
    np.testing.assert_allclose(embeddings(tower.graph), before, atol=2e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_scales_are_finite_and_positive(tiny_encoder, bad):
    tower = tiny_encoder.towers["vision"]
    before = tower.graph.SerializeToString()
    with pytest.raises(ValueError, match="finite and positive"):
        _rescale.rescale(tower, sites(tower, "mlp.fc1"), np.full(tiny_towers.WIDTH, bad, np.float32))
    assert tower.graph.SerializeToString() == before


def test_where_it_is_not_possible(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    (fc1,) = sites(tower, "mlp.fc1")
    assert not _rescale.possible(tower, sites(tower, "patch_embed"))
    tower.treatments[fc1.name] = StaticInt8(np.ones((2, 3), np.int8), np.ones(2, np.float32), 1.0)
    assert not _rescale.possible(tower, [fc1])
    tower.treatments.clear()
    assert _rescale.possible(tower, [fc1])
    tied = helper.make_node("MatMul", ["elsewhere", fc1.weight], ["again"], name="tied")
    tower.graph.graph.node.append(tied)
    assert not _rescale.possible(tower, [fc1])


def test_sites_are_grouped_by_what_they_read(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    told = [[site.role for site in group] for group in _smoothing.groups(tower, tower.sites)]
    assert ["attn.qkv"] * 3 in told
    assert sum(len(group) for group in told) == len(tower.sites)


def quantized(encoder, **options):
    before = {"vision": embeddings(encoder.towers["vision"].graph)}
    apply(encoder, Spec(towers=("vision",), **options), CONTEXT)
    made = emit(encoder.towers["vision"])
    lost = np.square(embeddings(made) - before["vision"]).mean()
    return made, lost


def muls(model):
    return sum(node.op_type == "Mul" for node in model.graph.node)


@pytest.mark.parametrize(("residual", "nodes"), [(False, 0), (True, 1)])
def test_a_loud_channel_is_folded_where_it_can_be_and_multiplied_elsewhere(tiny_encoder, residual, nodes):
    tower = tiny_encoder.towers["vision"]
    loud(tower)
    if residual:
        as_residual(tower)
    plain, much = quantized(copied(tiny_encoder), include=("mlp.fc1",), smooth=None, rescale_above=None)
    made, little = quantized(copied(tiny_encoder), include=("mlp.fc1",), smooth=None)
    assert muls(plain) == 0
    assert muls(made) == nodes
    assert little < much / 20


def test_inputs_are_smoothed_where_it_costs_nothing_if_nobody_says_no(tiny_encoder):
    loud(tiny_encoder.towers["vision"], factor=8.0)  # too little to be rescaled
    told = {"include": ("mlp.fc1",), "rescale_above": 0.5}
    plain, much = quantized(copied(tiny_encoder), **told, smooth=None)
    made, little = quantized(copied(tiny_encoder), **told)
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in plain.graph.node]
    assert little < much / 2


def test_inputs_that_lose_little_are_left_alone(tiny_encoder):
    graph = tiny_encoder.towers["vision"].graph
    before = graph.SerializeToString()
    apply(tiny_encoder, Spec(towers=("vision",), smooth=None), CONTEXT)
    assert graph.SerializeToString() == before
    assert any(held.zero_point != 128 for held in tiny_encoder.towers["vision"].treatments.values())
    tiny_encoder.towers["vision"].treatments.clear()
    apply(tiny_encoder, Spec(towers=("vision",), smooth=None, symmetric=True), CONTEXT)
    assert {held.zero_point for held in tiny_encoder.towers["vision"].treatments.values()} == {128}


def test_what_stays_in_float_is_decided_after_rescaling(tiny_encoder):
    loud(tiny_encoder.towers["vision"])
    options = {"include": ("mlp.fc1", "mlp.fc2"), "towers": ("vision",), "float_above": 0.001, "smooth": None}
    reports = [apply(copied(tiny_encoder), Spec(**options, rescale_above=each), CONTEXT) for each in (None, 0.001)]
    assert [[row.role for row in report.rows] for report in reports] == [["mlp.fc2"], ["mlp.fc1", "mlp.fc2"]]
    told = {row.role: row.treatment.endswith("rescaled") for row in reports[1].rows}
    assert told == {"mlp.fc1": True, "mlp.fc2": False}
