"""Compensated rounding: never worse on its own inputs than rounding alone, and the same where nothing can be gained."""

import numpy as np
import pytest
import tiny_towers
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.errors import UsageError
from compress.steps._activations import watch
from compress.steps._moments import Moments
from compress.steps.observer import patches
from compress.steps.quantize import gptq
from compress.steps.quantize._gptq import compensated, grid_for
from compress.steps.quantize._rounding import in_blocks
from compress.steps.quantize.gptq import Spec, apply
from compress.steps.step import Context
from compress.targets.graph.emitter import emit, weight_matrix
from compress.targets.graph.session import open_session, run

CONTEXT = Context(tiny_towers.feeds)


def inputs(seed, rows=400, columns=96, rank=12):
    """Correlated inputs, a few of them much stronger than the rest."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) + 0.3 * rng.normal(size=(rows, columns))
    return (mixed * rng.lognormal(0, 1, columns)).astype(np.float32)


def error(weight, held, x):
    return float(np.linalg.norm(x @ (weight - held.dequantized()).T))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("by_importance", [True, False])
def test_outputs_are_nearer_than_by_rounding_alone(symmetric, by_importance):
    gains = []
    for seed in range(5):
        x = inputs(seed)
        weight = np.random.default_rng(100 + seed).normal(size=(64, 96)).astype(np.float32)
        gram = (x.T @ x).astype(np.float64) / len(x)
        grid = grid_for(weight, gram, 4, 32, symmetric)
        held = compensated(weight, gram, grid, 0.01, by_importance)
        np.testing.assert_array_equal(held.scales, grid.scales)
        gains.append(error(weight, held, x) / error(weight, in_blocks(weight, 4, 32, symmetric), x))
    assert max(gains) < 0.75


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 80), st.sampled_from([32, 64]), st.sampled_from([4, 8]), st.booleans())
def test_independent_inputs_leave_nothing_to_compensate(seed, columns, block, bits, symmetric):
    weight = np.random.default_rng(seed).normal(size=(7, columns)).astype(np.float32)
    grid = in_blocks(weight, bits, block, symmetric)
    held = compensated(weight, np.eye(columns), grid, 0.01, True)
    np.testing.assert_array_equal(held.codes, grid.codes)
    np.testing.assert_array_equal(held.dequantized(), grid.dequantized())


def test_inputs_that_never_fire_keep_their_rounded_weight():
    x = inputs(3)
    x[:, 10:20] = 0
    weight = np.random.default_rng(0).normal(size=(16, 96)).astype(np.float32)
    gram = (x.T @ x).astype(np.float64) / len(x)
    grid = grid_for(weight, gram, 4, 32, True)
    held = compensated(weight, gram, grid, 0.01, True)
    np.testing.assert_array_equal(held.dequantized()[:, 10:20], grid.dequantized()[:, 10:20])


def test_moments_are_those_of_all_rows(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    seen = watch(tower, tower.sites, CONTEXT, Moments)
    (patch,) = (site for site in tower.sites if site.role == "patch_embed")
    rows = np.concatenate([
        patches(feed["pixel_values"], (4, 4), (4, 4), (0, 0, 0, 0)).reshape(-1, 48)
        for feed in tiny_towers.feeds("vision")
    ])  # fmt: skip
    assert seen[patch.name].rows == len(rows)
    np.testing.assert_allclose(seen[patch.name].gram, rows.T.astype(float) @ rows, rtol=1e-4)
    np.testing.assert_allclose(seen[patch.name].total, rows.sum(0), rtol=1e-4, atol=1e-3)
    for site in tower.sites:
        assert seen[site.name].gram.shape == (weight_matrix(tower, site).shape[1],) * 2


@pytest.mark.parametrize(("strides", "pads"), [((4, 4), (0, 0, 0, 0)), ((2, 3), (1, 0, 2, 1))])
def test_patches_are_what_a_convolution_multiplies(strides, pads):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 3, 8, 9)).astype("f"), rng.normal(size=(5, 3, 4, 4)).astype("f")
    padded = np.pad(images, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    expected = torch.nn.functional.conv2d(torch.from_numpy(padded), torch.from_numpy(kernel), stride=strides)
    found = patches(images, (4, 4), strides, pads) @ kernel.reshape(5, -1).T
    np.testing.assert_allclose(found.transpose(0, 2, 1).reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_a_whole_tower_moves_less_than_with_plain_rounding(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    feeds = list(tiny_towers.feeds("vision"))

    def output(graph):
        session = open_session(graph)
        return np.concatenate([run(session, [tower.output], feed)[0] for feed in feeds])

    before = output(tower.graph)
    report = apply(
        tiny_encoder, Spec(towers=("vision",), include=("attn.qkv", "mlp.fc1", "mlp.fc2", "patch_embed")), CONTEXT
    )
    assert {row.treatment for row in report.rows} == {"int4 in blocks of 32"}
    moved = np.linalg.norm(output(emit(tower)) - before)
    for site in tower.sites:
        if site.name in tower.treatments:
            tower.treatments[site.name] = in_blocks(weight_matrix(tower, site), 4, 32)
    assert moved < np.linalg.norm(output(emit(tower)) - before)


def test_towers_whose_sites_have_the_same_names_do_not_mix(tiny_encoder):
    shared = {site.name for site in tiny_encoder.towers["vision"].sites} & {
        site.name for site in tiny_encoder.towers["text"].sites
    }
    assert shared
    apply(tiny_encoder, Spec(), CONTEXT)
    together = {kind: dict(tower.treatments) for kind, tower in tiny_encoder.towers.items()}
    for kind, tower in tiny_encoder.towers.items():
        tower.treatments.clear()
        apply(tiny_encoder, Spec(towers=(kind,)), CONTEXT)
        assert tower.treatments.keys() == together[kind].keys()
        for name, held in tower.treatments.items():
            np.testing.assert_array_equal(held.codes, together[kind][name].codes)


def test_what_cannot_be(tiny_encoder, monkeypatch):
    with pytest.raises(UsageError, match="no input to compensate"):
        apply(tiny_encoder, Spec(include=("embedding",)), CONTEXT)
    with pytest.raises(UsageError, match="needs calibration data"):
        apply(tiny_encoder, Spec(), Context())

    def singular(*_):
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(gptq, "compensated", singular)
    with pytest.raises(UsageError, match="cannot be inverted: not positive definite"):
        apply(tiny_encoder, Spec(towers=("vision",)), CONTEXT)
    assert not tiny_encoder.towers["vision"].treatments
