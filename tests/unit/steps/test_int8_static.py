"""Calibration: what flows into each site is what a float run of the graph says flows into it."""

import numpy as np
import pytest
import tiny_towers

from compress.core.errors import UsageError
from compress.steps._activations import watch
from compress.steps.quantize.int8_static import Spec, apply
from compress.steps.step import Context

CONTEXT = Context(tiny_towers.feeds)


def test_every_value_is_seen_once_a_batch(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    seen = {}
    source = watch(tower, tower.sites, CONTEXT, lambda name, array: seen.setdefault(name, []).append(array))
    by_role = {site.role: source[site.name] for site in tower.sites}
    assert by_role["patch_embed"] == "pixel_values"
    assert {name: len(arrays) for name, arrays in seen.items()} == dict.fromkeys(set(source.values()), 2)
    np.testing.assert_array_equal(seen["pixel_values"][1], list(tiny_towers.feeds("vision"))[1]["pixel_values"])
    assert len({source[site.name] for site in tower.sites if site.role == "attn.qkv"}) == 1
    assert seen[by_role["mlp.fc2"]][0].shape == (3, 4, tiny_towers.INNER)


def test_the_clip_range_of_the_pixels_is_their_percentile(tiny_encoder):
    apply(
        tiny_encoder, Spec(include=("patch_embed",), range="percentile", percentile=90.0, towers=("vision",)), CONTEXT
    )
    tower = tiny_encoder.towers["vision"]
    (held,) = tower.treatments.values()
    pixels = np.abs(np.concatenate([feed["pixel_values"].ravel() for feed in tiny_towers.feeds("vision")]))
    assert held.input_scale * 127 == pytest.approx(np.quantile(pixels, 0.9), rel=0.01)


def test_calibration_data_are_needed(tiny_encoder):
    with pytest.raises(UsageError, match="needs calibration data"):
        apply(tiny_encoder, Spec(), Context())
    with pytest.raises(UsageError, match="no calibration data for the vision tower"):
        apply(tiny_encoder, Spec(), Context(lambda kind: iter(())))


def test_a_table_has_no_input(tiny_encoder):
    with pytest.raises(UsageError, match="no input to quantize"):
        apply(tiny_encoder, Spec(include=("embedding",)), CONTEXT)
    assert not tiny_encoder.towers["text"].treatments


def test_activations_that_are_no_numbers(tiny_encoder):
    def broken(kind):
        for feed in tiny_towers.feeds(kind):
            yield {name: np.full_like(values, np.nan) if kind == "vision" else values for name, values in feed.items()}

    with pytest.raises(UsageError, match="NaN or infinity") as caught:
        apply(tiny_encoder, Spec(), Context(broken))
    assert caught.value.where.startswith("vision tower")
