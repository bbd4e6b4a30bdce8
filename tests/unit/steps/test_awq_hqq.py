"""The searches of AWQ and HQQ on arrays: never worse by their own measure than what they start from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.steps.quantize._awq import best_power, scales_of
from compress.steps.quantize._hqq import half_quadratic
from compress.steps.quantize._rounding import in_blocks


def rounded(weight, _):
    return in_blocks(weight.astype(np.float32), 4, 32).dequantized()


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_power_found_loses_no_more_than_none(seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(8, 64)).astype(np.float32)
    inputs = rng.normal(size=(200, 64)) * np.exp(rng.normal(size=64) * 1.5)
    power, loss, before = best_power([weight], inputs.T @ inputs / 200, rounded)
    assert 0 <= power <= 1
    assert loss <= before


def test_strong_channels_are_protected():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(32, 64)).astype(np.float32)
    strength = np.ones(64)
    strength[5] = 50.0
    inputs = rng.normal(size=(500, 64)) * strength
    gram = inputs.T @ inputs / 500
    power, loss, before = best_power([weight], gram, rounded)
    assert power > 0
    assert loss < before / 2
    expected = np.square(inputs @ (weight - rounded(weight, None)).T).sum(1).mean()
    assert before == pytest.approx(expected, rel=1e-4), "tr(D gram D^T) is the mean square of what is lost"


def test_scales_are_finite_where_an_input_never_fired():
    scales = scales_of(np.array([0.0, 1.0, 4.0]), 1.0)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    assert scales[2] / scales[1] == pytest.approx(4)
    assert scales_of(np.zeros(3), 0.5) == pytest.approx(np.ones(3))


@pytest.mark.parametrize("bits", [4, 8])
def test_half_quadratic_loses_less_by_its_norm_than_the_plain_range(bits):
    rng = np.random.default_rng(1)
    weight = rng.standard_t(3, size=(16, 128)).astype(np.float32)
    plain = in_blocks(weight, bits, 64, symmetric=False, search="absmax").dequantized()
    found = half_quadratic(weight, bits, 64)
    ours, theirs = (np.power(np.abs(each - weight), 0.7).sum() for each in (found.dequantized(), plain))
    assert ours <= theirs * 1.0001
    assert found.codes.max() <= (1 << bits) - 1
    assert found.zero_points is not None


def test_half_quadratic_pads_the_last_block_and_keeps_a_constant():
    weight = np.full((3, 40), 0.25, np.float32)
    held = half_quadratic(weight, 4, 32)
    assert held.dequantized().shape == (3, 40)
    np.testing.assert_allclose(held.dequantized(), weight, rtol=1e-6)
    np.testing.assert_array_equal(half_quadratic(np.zeros((2, 32), np.float32), 4, 32).dequantized(), np.zeros((2, 32)))
