"""Weights of tokens: the child's gradients, segment by segment, against those of the whole tower at once."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_towers
import torch
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.data import child
from compress.models import surgery
from compress.models.differentiable import DifferentiableTower
from compress.models.junctions import junction
from compress.models.segments import segments
from compress.models.surgery import linear
from compress.steps import sensor
from compress.steps._sensitivity import PROBES, sensitivity, taylor
from compress.steps._walk import walk
from compress.steps.prune import auto, heads, mlp
from compress.steps.step import Context
from compress.targets.graph.session import open_session


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


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kind", ["vision", "text"])
def test_taylor_scores_are_squared_gradients_by_gates(deep, kind, groups):
    """A gate multiplies its channels in every token: here it is there, and torch differentiates by it."""
    tower = deep.towers[kind]
    names = [junction(tower, site).inner for site in tower.sites if site.role == "mlp.fc2"]
    size = {name: next(site for site in tower.sites if junction_of(tower, site) == name).shape[0] for name in names}
    found = taylor(tower, {name: size[name] // groups for name in names}, Context(tiny_towers.feeds, seed=3))
    rng = torch.Generator().manual_seed(3)
    told = dict.fromkeys(names, 0.0)
    for feed in tiny_towers.feeds(kind):
        gates = {name: torch.ones(len(next(iter(feed.values()))), size[name] // groups) for name in names}
        for each in gates.values():
            each.requires_grad_(True)
        hooks = {
            site.node: gate(gates[junction_of(tower, site)], groups) for site in tower.sites if site.role == "mlp.fc2"
        }
        made = DifferentiableTower(tower, (), hooks)({name: torch.from_numpy(array) for name, array in feed.items()})
        flat = torch.nn.functional.normalize(made[tower.output].flatten(1), dim=1)
        for probe in torch.randn((PROBES, *flat.shape), generator=rng):
            got = torch.autograd.grad((flat * probe).sum(), list(gates.values()), retain_graph=True)
            told = {name: told[name] + each.square().sum(0).numpy() for name, each in zip(gates, got, strict=True)}
    for name in names:
        np.testing.assert_allclose(found[name], told[name], rtol=5e-3, atol=1e-7)


def junction_of(tower, site):
    return junction(tower, site).inner if site.role == "mlp.fc2" else None


def gate(factors, groups):
    """Channels of what a product reads, multiplied by the gate of their group in their sample."""

    def hook(inputs):
        wide = factors.repeat_interleave(groups, 1)
        return [inputs[0] * wide.reshape(len(wide), *[1] * (inputs[0].dim() - 2), -1), *inputs[1:]]

    return hook


@pytest.mark.parametrize(("method", "ratio"), [(mlp, 0.4), (heads, 0.5)])
def test_channels_that_nothing_hears_go_first_by_taylor(tmp_path, method, ratio):
    encoder = tiny_towers.encoder(tmp_path, heads=4)
    tower = encoder.towers["text"]
    if method is mlp:
        second = next(site for site in tower.sites if site.role == "mlp.fc2")
        weight, bias = linear(tower, second)
        weight[:, ::2] = 0
    else:
        second = next(site for site in tower.sites if site.role == "attn.out")
        weight, bias = linear(tower, second)
        weight.reshape(len(weight), 4, -1)[:, 1:3] = 0
    surgery.replace(tower, second, weight, bias)
    before = sensed_output(tower)
    spec = method.Spec(towers=("text",), ratio=ratio, score="taylor", compensate="none")
    report = method.apply(encoder, spec, Context(tiny_towers.feeds))
    assert report.rows
    np.testing.assert_allclose(sensed_output(tower), before, rtol=1e-4, atol=1e-5)


def sensed_output(tower):
    feed = next(iter(tiny_towers.feeds("text")))
    return open_session(tower.graph).run(None, {name: feed[name] for name in tower.inputs})[0]


def test_without_a_gradient_there_is_no_taylor_score(deep, monkeypatch):
    monkeypatch.setattr("compress.steps._sensitivity._sensed", lambda *_: ["Mystery"])
    spec = mlp.Spec(towers=("text",), score="taylor")
    with pytest.raises(UsageError, match="no gradient of Mystery is known"):
        mlp.apply(deep, spec, Context(tiny_towers.feeds))


def test_a_search_computes_them_once(deep, tmp_path, monkeypatch):
    tower = deep.towers["text"]
    feeds = files(tower, tmp_path, list(tiny_towers.feeds("text", 1)))
    context = Context(memory=tmp_path / "memory")
    first = sensitivity(tower, tower.graph, ends(tower), feeds, context)
    monkeypatch.setattr("compress.steps._sensitivity._sensed", None)
    assert sensitivity(tower, tower.graph, ends(tower), feeds, context) == first
    assert sensitivity(tower, tower.graph, ends(tower)[1:], feeds, context) == first, "trials may ask for fewer"
    tower.graph.graph.initializer[0].name += "x"
    with pytest.raises(TypeError):
        sensitivity(tower, tower.graph, ends(tower), feeds, context)


def test_a_trial_that_asks_for_more_keeps_what_others_asked_for(deep, tmp_path):
    tower = deep.towers["text"]
    feeds = files(tower, tmp_path, list(tiny_towers.feeds("text", 1)))
    few, whole = (Context(memory=tmp_path / name) for name in ("few", "whole"))
    expected = sensitivity(tower, tower.graph, ends(tower), feeds, whole)
    sensitivity(tower, tower.graph, ends(tower)[:1], feeds, few)
    found = sensitivity(tower, tower.graph, ends(tower)[1:], feeds, few)
    with np.load(found.files[0]) as made, np.load(expected.files[0]) as all_at_once:
        assert set(made.files) == set(all_at_once.files) == set(ends(tower))
        for name in made.files:
            np.testing.assert_allclose(made[name], all_at_once[name], rtol=1e-4)


def test_a_search_over_blocks_weighs_tokens_once_more_at_most(deep, monkeypatch):
    ran, asked = child.run, []
    monkeypatch.setattr(child, "run", lambda *given: asked.append(given[0]) or ran(*given))
    budget = auto.Budget(parameters=0.9)
    spec = auto.Spec(
        budget=budget, towers=("text",), methods=("depth", "mlp"), levels=(0.5,), unit="layer", loss="cosine"
    )
    auto.apply(deep, spec, Context(lambda kind: tiny_towers.feeds(kind, 6)))
    assert asked.count("compress.steps.sensor") <= 4, "for half of the samples and for all of them, at most twice each"


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
