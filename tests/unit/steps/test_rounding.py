"""Rounding weights: against scalar loops that know nothing of arrays, and laws that hold for any weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from compress.models.treatment import BlockWeights
from compress.steps.quantize._rounding import in_blocks, int8_per_channel, per_tensor
from compress.steps.quantize._weights import relative_error, stored_bytes
from compress.targets.graph.emitter import packed

WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=41),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)
KINDS = [(bits, symmetric) for bits in (4, 8) for symmetric in (True, False)]


def pieces(weight, block):
    """Every block of every row, unpadded."""
    for row in weight:
        for at in range(0, len(row), block):
            yield row[at : at + block]


def plain(values, bits, symmetric):
    """One block rounded to nearest the way the textbook does it, as float64."""
    half, top = 2 ** (bits - 1), 2**bits - 1
    if symmetric:
        scale = max(abs(v) for v in values) / (half - 1) or 1.0
        return [min(max(round(v / scale), -half), half - 1) * scale for v in values]
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (high - low) / top or 1.0
    zero = min(max(round(-low / scale), 0), top)
    return [(min(max(round(v / scale) + zero, 0), top) - zero) * scale for v in values]


def error(weight, held):
    return float(np.square(held.dequantized().astype(np.float64) - weight).sum())


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_absmax_is_the_textbook(bits, symmetric):
    weight = np.random.default_rng(0).normal(size=(3, 37)).astype(np.float32)
    held = in_blocks(weight, bits, 16, symmetric, "absmax")
    expected = [plain([float(v) for v in piece], bits, symmetric) for piece in pieces(weight, 16)]
    np.testing.assert_allclose(held.dequantized().ravel(), np.concatenate(expected), atol=1e-5)


def test_symmetric_by_hand():
    """Largest magnitude 7, so the scale is 1 and the codes are the values plus 8; halves go to the even neighbour."""
    held = in_blocks(np.array([[7, -7, 0.4, 2.5]], np.float32), 4, 4, search="absmax")
    np.testing.assert_array_equal(held.codes, [[[15, 1, 8, 10]]])
    np.testing.assert_array_equal(held.scales, [[1]])
    assert held.zero_points is None
    np.testing.assert_array_equal(held.dequantized(), [[7, -7, 0, 2]])


def test_asymmetric_by_hand():
    """From -5 to 10 in 15 steps: the scale is 1 and 0 has the code 5."""
    held = in_blocks(np.array([[-5, 10, 0, 3.6]], np.float32), 4, 4, symmetric=False, search="absmax")
    np.testing.assert_array_equal(held.codes, [[[0, 15, 5, 9]]])
    np.testing.assert_array_equal(held.zero_points, [[5]])
    np.testing.assert_array_equal(held.dequantized(), [[-5, 10, 0, 4]])


def test_a_negative_scale_gives_the_extra_code_to_the_larger_side():
    """8 steps up and 7 down fit into -8..7 only when turned around: then nothing is lost."""
    weight = np.array([[8, 4, -7, 1]], np.float32)
    held = in_blocks(weight, 4, 4)
    np.testing.assert_array_equal(held.scales, [[-1]])
    np.testing.assert_array_equal(held.dequantized(), weight)
    np.testing.assert_array_equal(in_blocks(-weight, 4, 4).scales, [[1]])
    assert error(weight, in_blocks(weight, 4, 4, search="absmax")) > 0.1


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
@pytest.mark.parametrize("search", ["absmax", "mse"])
def test_an_all_zero_block_is_zero(bits, symmetric, search):
    weight = np.zeros((2, 40), np.float32)
    weight[0, 35] = 3
    held = in_blocks(weight, bits, 32, symmetric, search)
    assert np.isfinite(held.scales).all()
    np.testing.assert_array_equal(np.delete(held.dequantized().ravel(), 35), 0)
    assert held.dequantized()[0, 35] == pytest.approx(3)


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_the_padding_of_the_last_block_is_zero_and_is_cut_off(bits, symmetric):
    weight = np.random.default_rng(1).uniform(0.5, 1, (3, 20)).astype(np.float32)
    held = in_blocks(weight, bits, 16, symmetric)
    assert held.codes.shape == (3, 2, 16)
    assert held.columns == 20
    assert held.dequantized().shape == weight.shape
    zero = 2 ** (bits - 1) if held.zero_points is None else held.zero_points[:, 1, None]
    np.testing.assert_array_equal(held.codes[:, 1, 4:], np.broadcast_to(zero, (3, 12)))


@given(WEIGHTS, st.sampled_from(KINDS), st.sampled_from([16, 32]))
@settings(max_examples=60, deadline=None)
def test_the_search_never_makes_it_worse(weight, kind, block):
    bits, symmetric = kind
    searched, plain_held = (in_blocks(weight, bits, block, symmetric, search) for search in ("mse", "absmax"))
    assert error(weight, searched) <= error(weight, plain_held) * (1 + 1e-5) + 1e-30


@given(WEIGHTS, st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_absmax_is_off_by_no_more_than_a_step(weight, kind):
    """Half a step by rounding, and up to another half where the zero point was rounded too."""
    bits, symmetric = kind
    held = in_blocks(weight, bits, 16, symmetric, "absmax")
    steps = np.repeat(np.abs(held.scales), 16, axis=1)[:, : weight.shape[1]]
    slack = (0.5 if symmetric else 1.0) * steps * (1 + 1e-4) + 1e-6
    assert (np.abs(held.dequantized() - weight) <= slack).all()


@given(WEIGHTS, st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_rounding_what_is_rounded_changes_nothing_much(weight, kind):
    once = in_blocks(weight, kind[0], 16, kind[1], "absmax").dequantized()
    twice = in_blocks(once, kind[0], 16, kind[1], "absmax").dequantized()
    np.testing.assert_allclose(twice, once, rtol=1e-4, atol=np.abs(weight).max() * 1e-5 + 1e-30)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_dequantized_is_the_formula(data):
    bits = data.draw(st.sampled_from([4, 8]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = rng.integers(0, 2**bits, (2, 3, 4)).astype(np.uint8)
    zeros = rng.integers(0, 2**bits, (2, 3)).astype(np.uint8) if data.draw(st.booleans()) else None
    scales = rng.normal(size=(2, 3)).astype(np.float32)
    got = BlockWeights(codes, scales, zeros, bits, 10).dequantized()
    assert got.shape == (2, 10)
    for row in range(2):
        for column in range(10):
            block, place = divmod(column, 4)
            zero = 2 ** (bits - 1) if zeros is None else int(zeros[row, block])
            expected = (int(codes[row, block, place]) - zero) * float(scales[row, block])
            assert math.isclose(got[row, column], expected, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("search", ["absmax", "mse"])
def test_per_tensor_has_one_scale(search):
    weight = np.random.default_rng(2).normal(size=(5, 70)).astype(np.float32)
    held = per_tensor(weight, 4, 32, search)
    assert held.codes.shape == (5, 3, 32)
    assert len(np.unique(held.scales)) == 1
    whole = in_blocks(weight.reshape(1, -1), 4, weight.size, search=search)
    np.testing.assert_array_equal(held.dequantized().ravel(), whole.dequantized().ravel())
    np.testing.assert_array_equal(held.codes[:, 2, 6:], 8)


def test_int8_per_channel_by_hand():
    weight = np.array([[1.27, -0.633, 0.0049], [0, 0, 0], [-254, 1, 3]], np.float32)
    codes, scales = int8_per_channel(weight)
    np.testing.assert_allclose(scales, [0.01, 1, 2], rtol=1e-6)
    np.testing.assert_array_equal(codes, [[127, -63, 0], [0, 0, 0], [-127, 0, 2]])
    assert codes.dtype == np.int8


@given(WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_int8_per_channel_is_off_by_half_a_step(weight):
    codes, scales = int8_per_channel(weight)
    assert scales.shape == (len(weight),)
    assert np.abs(codes.astype(int)).max() <= 127
    off = np.abs(codes * scales[:, None].astype(np.float64) - weight)
    assert (off <= scales[:, None] * 0.5001 + 1e-30).all()


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
@pytest.mark.parametrize("columns", [64, 70])
def test_stored_bytes_are_those_of_the_arrays(bits, symmetric, columns):
    held = in_blocks(np.random.default_rng(0).normal(size=(5, columns)).astype(np.float32), bits, 32, symmetric)
    arrays_held = [packed(held.codes, bits), held.scales]
    arrays_held += [] if held.zero_points is None else [packed(held.zero_points, bits)]
    assert stored_bytes(held) == sum(each.nbytes for each in arrays_held)


def test_relative_error():
    assert relative_error(np.array([[3.0, 4.0]], "f"), np.array([[3.0, 3.0]], "f")) == pytest.approx(0.2)
    assert relative_error(np.zeros((1, 2), "f"), np.zeros((1, 2), "f")) == 0
