"""Weights of tokens: the child's gradients, segment by segment, against those of the whole tower at once."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_towers
import torch
from onnx import helper, numpy_helper

from compress.models.differentiable import DifferentiableTower
from compress.models.junctions import junction
from compress.models.segments import segments
from compress.steps import sensor
from compress.steps._sensitivity import PROBES, sensitivity
from compress.steps._walk import walk
from compress.steps.prune import mlp
from compress.steps.step import Context


@pytest.fixture
def deep(tmp_path):
    return tiny_towers.encoder(tmp_path, blocks=3)


def files(tower, folder, feeds):
    paths = [folder / f"feed{at}.npz" for at in range(len(feeds))]
    for path, feed in zip(paths, feeds, strict=True):
        np.savez(path, **feed)
    return [str(path) for path in paths]


def ends(tower):
    return [junction(tower, site).joined for site in tower.sites if site.role in ("attn.out", "mlp.fc2")]


def expected(tower, feed, values, rng):
    """Squared gradients through the whole tower, one probe after the other."""
    module = DifferentiableTower(tower, values).requires_grad_(False)
    given = {name: torch.from_numpy(array) for name, array in feed.items()}
    taken = {name: each.requires_grad_(each.is_floating_point()) for name, each in given.items()}
    if not any(each.requires_grad for each in taken.values()):
        module.requires_grad_(True)
    made = module(given)
    flat = torch.nn.functional.normalize(made[tower.output].flatten(1), dim=1)
    sums = dict.fromkeys(values, 0)
    for probe in torch.randn((PROBES, *flat.shape), generator=rng):
        found = torch.autograd.grad((flat * probe).sum(), [made[name] for name in values], retain_graph=True)
        for name, gradient in zip(values, found, strict=True):
            sums[name] = sums[name] + gradient.square().sum(-1)
    return {name: (each / each.mean(1, keepdim=True)).numpy() for name, each in sums.items()}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["vision", "text"])
def test_segments_give_the_gradient_of_the_whole(deep, tmp_path, kind, whole):
    """Cut into blocks, or in one piece, which behind token ids has no float input."""
    tower, feeds = deep.towers[kind], list(tiny_towers.feeds(kind, 2))
    values = ends(tower)
    assert len(values) == 6
    tower = replace(tower, sites=()) if whole else tower
    assert (len(segments(tower.graph, tower.sites)) == 1) is whole
    found = sensitivity(tower, tower.graph, values, files(tower, tmp_path, feeds), Context(seed=3))
    rng = torch.Generator().manual_seed(3)
    assert len(found.files) == len(feeds)
    for path, feed in zip(found.files, feeds, strict=True):
        told = expected(tower, feed, values, rng)
        with np.load(path) as weights:
            assert sorted(weights.files) == sorted(values)
            for name in values:
                np.testing.assert_allclose(weights[name], told[name], rtol=2e-3, atol=1e-5)


def test_a_search_computes_them_once(deep, tmp_path, monkeypatch):
    tower = deep.towers["text"]
    feeds = files(tower, tmp_path, list(tiny_towers.feeds("text", 1)))
    context = Context(memory=tmp_path / "memory")
    first = sensitivity(tower, tower.graph, ends(tower), feeds, context)
    monkeypatch.setattr("compress.steps._sensitivity._sensed", None)
    assert sensitivity(tower, tower.graph, ends(tower), feeds, context) == first
    tower.graph.graph.initializer[0].name += "x"
    with pytest.raises(TypeError):
        sensitivity(tower, tower.graph, ends(tower), feeds, context)


def test_operators_without_a_gradient_are_told(deep, tmp_path):
    tower = deep.towers["vision"]
    node = next(node for node in tower.graph.graph.node if node.op_type == "Softmax")
    node.op_type = "Hardmax"
    found = next(walk(tower, [junction(tower, _fc2(tower, 0))], Context(tiny_towers.feeds)))
    assert found.unknown == ("Hardmax",)
    alike = next(walk(tower, [junction(tower, _fc2(tower, 0))], Context(tiny_towers.feeds), "alike"))
    assert np.array_equal(found.train.inputs.gram, alike.train.inputs.gram)
    assert not alike.unknown
    report = mlp.apply(deep, mlp.Spec(towers=("vision",), ratio=0.5), Context(lambda kind: tiny_towers.feeds(kind, 12)))
    assert all("tokens alike: no gradient of Hardmax" in row.treatment for row in report.rows if "fc2" in row.site)


def test_samples_count_alike_and_broken_gradients_not_at_all(tmp_path):
    told = np.array(
        [[1, 3, 0, 0], [1e-30, 0, 0, 3e-30], [0, 0, 0, 0], [np.nan, 1, 2, 3], [np.inf, 1, 1, 1]], np.float32
    )
    np.savez(tmp_path / "sensed0.npz", stream=told)
    sensor._scale(tmp_path, 1)
    with np.load(tmp_path / "sensed0.npz") as found:
        assert found["stream"].tolist() == [[1, 3, 0, 0], [1, 0, 0, 3], [0] * 4, [1] * 4, [1] * 4]


def test_tokens_that_reach_nothing_are_silent(tmp_path):
    """Where the first of four tokens is pooled, what a last block adds to the three others goes nowhere."""
    encoder = tiny_towers.encoder(tmp_path, blocks=2)
    tower = encoder.towers["vision"]
    pooling = next(node for node in tower.graph.graph.node if node.op_type == "ReduceMean")
    place = numpy_helper.from_array(np.array(0, np.int64), "first")
    tower.graph.graph.initializer.append(place)
    pooling.CopyFrom(helper.make_node("Gather", [pooling.input[0], "first"], pooling.output, pooling.name, axis=1))
    walked = walk(tower, [junction(tower, _fc2(tower, layer)) for layer in (0, 1)], Context(tiny_towers.feeds))
    first, last = ((seen.moments().rows, sum(each.rows for each in seen.silent)) for seen in walked)
    assert last == (pytest.approx(7 * 4, rel=1e-5), 7 * 3)  # a sample counts as much as it has tokens
    assert first[0] == pytest.approx(7 * 4, rel=1e-5)
    assert first[1] < last[1]


def _fc2(tower, layer):
    return next(site for site in tower.sites if site.role == "mlp.fc2" and site.layer == layer)
