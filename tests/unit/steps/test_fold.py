"""Scales move from a weight into what feeds it, and the tower goes on saying the same."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_towers
from onnx import helper

from compress.models.treatment import StaticInt8
from compress.steps.quantize import _fold
from compress.targets.graph.emitter import weight_matrix
from compress.targets.graph.session import open_session


def embeddings(tower):
    (feed,) = tiny_towers.feeds(tower.kind, 1)
    return open_session(tower.graph).run(None, feed)[0]


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_every_fold_leaves_the_embeddings_where_they_are(tiny_encoder, kind):
    tower, rng = tiny_encoder.towers[kind], np.random.default_rng(0)
    before, roles = embeddings(tower), set()
    for source in _fold.sources(tower, tower.sites):
        roles |= {site.role for site in source.sites}
        old = [weight_matrix(tower, site).copy() for site in source.sites]
        scales = np.exp(rng.normal(size=old[0].shape[1])).astype(np.float32)
        _fold.fold(tower, source, scales)
        for site, weight in zip(source.sites, old, strict=True):
            np.testing.assert_allclose(weight_matrix(tower, site), weight * scales, rtol=1e-6)
    assert {"attn.qkv", "attn.out", "mlp.fc1"} <= roles
    assert "mlp.fc2" not in roles, "behind an activation that is no multiple of its input there is no place"
    np.testing.assert_allclose(embeddings(tower), before, atol=2e-6)


def test_a_value_that_another_node_reads_is_left_alone(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    source = next(each for each in _fold.sources(tower, tower.sites) if each.sites[0].role == "mlp.fc1")
    node = next(each for each in tower.graph.graph.node if each.name == source.sites[0].node)
    tower.graph.graph.node.append(helper.make_node("Identity", [node.input[0]], ["seen"], name="residual"))
    assert source.sites not in [each.sites for each in _fold.sources(tower, tower.sites)]


def test_a_weight_that_another_layer_shares_is_left_alone(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    source = next(each for each in _fold.sources(tower, tower.sites) if each.sites[0].role == "mlp.fc1")
    other = helper.make_node("MatMul", ["elsewhere", source.sites[0].weight], ["again"], name="tied")
    tower.graph.graph.node.append(other)
    assert source.sites not in [each.sites for each in _fold.sources(tower, tower.sites)]


def test_values_that_are_a_sum_of_two_branches_are_left_alone(tiny_encoder):
    """As where a low-rank branch is added to the value projection: dividing one of the two would be wrong."""
    tower = tiny_encoder.towers["vision"]
    source = next(each for each in _fold.sources(tower, tower.sites) if each.sites[0].role == "attn.out")
    add = next(node for node in tower.graph.graph.node if source.divided[1] in node.input)
    branch = helper.make_node("Identity", [tower.inputs[0]], ["branch"], name="branch")
    tower.graph.graph.node.append(branch)
    add.input[list(add.input).index(source.divided[1])] = "branch"
    assert source.sites not in [each.sites for each in _fold.sources(tower, tower.sites)]


def test_every_reader_has_to_be_chosen(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    queries = [site for site in tower.sites if site.role == "attn.qkv"][:1]
    assert not list(_fold.sources(tower, queries))


def test_a_weight_that_is_integers_already_cannot_be_divided(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    for site in tower.sites:
        if site.role == "attn.qkv":
            out, columns = weight_matrix(tower, site).shape
            tower.treatments[site.name] = StaticInt8(np.ones((out, columns), np.int8), np.ones(out, np.float32), 1.0)
    outputs = [site for site in tower.sites if site.role == "attn.out"]
    assert not list(_fold.sources(tower, outputs))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_scales_are_finite_and_positive(tiny_encoder, bad):
    tower = tiny_encoder.towers["vision"]
    source = next(_fold.sources(tower, tower.sites))
    scales = np.ones(weight_matrix(tower, source.sites[0]).shape[1], np.float32)
    scales[0] = bad
    with pytest.raises(ValueError, match="finite and positive"):
        _fold.fold(tower, source, scales)
