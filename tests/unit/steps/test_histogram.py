"""The histogram of magnitudes: growing keeps counts; both clip ranges against brute force on the values themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.steps.quantize._histogram import BINS, Histogram


def filled(*batches):
    made = Histogram()
    for batch in batches:
        made.add(np.asarray(batch, np.float32))
    return made


def test_growing_merges_neighbours():
    made = filled([0.1, 0.6, 1.0])
    assert made.top == 1
    before = made.counts.copy()
    made.add(np.array([3.0], np.float32))
    assert made.top == 4
    assert made.largest == 3
    expected = np.zeros(BINS)
    expected[: BINS // 4] = before.reshape(-1, 4).sum(1)
    expected[3 * BINS // 4] += 1
    np.testing.assert_array_equal(made.counts, expected)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_value_is_counted_once_in_its_bin(batches):
    made = filled(*batches)
    values = np.abs(np.concatenate([np.asarray(batch, np.float32) for batch in batches])).astype(np.float64)
    assert made.counts.sum() == len(values)
    assert made.largest == values.max(initial=0)
    if len(values):
        assert made.top >= made.largest
        reached = np.cumsum(made.counts)
        edges = np.arange(1, BINS + 1) * made.top / BINS
        slack = made.top * 1e-6  # a value that lies on an edge may be on either side of it
        below = (values[:, None] < edges[None, ::64] - slack).sum(0)
        at_most = (values[:, None] <= edges[None, ::64] + slack).sum(0)
        assert (below <= reached[::64]).all()
        assert (reached[::64] <= at_most).all()


def test_zeros_first_and_values_later():
    made = filled([0.0, 0.0], [2.0])
    assert made.counts.sum() == 3
    assert made.largest == 2
    assert made.percentile(100) == 2
    assert 0 < filled([0.0]).percentile(99) <= 1e-8
    assert 0 < filled([0.0]).least_error() <= 1e-8
    assert 0 < filled([]).percentile(99) <= 1e-8


@pytest.mark.parametrize("percent", [51, 90, 99, 99.9, 100])
@pytest.mark.parametrize("seed", range(3))
def test_percentile_against_sorting(percent, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.standard_t(3, size=(40, 7)) * scale for scale in (1, 2, 5)]
    made = filled(*batches)
    values = np.sort(np.abs(np.concatenate(batches)).astype(np.float32).ravel())
    exact = values[int(np.ceil(len(values) * percent / 100)) - 1]
    assert exact * (1 - 1e-6) <= made.percentile(percent) <= exact + made.top / BINS + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_least_error_against_rounding_every_value(seed):
    """The range it picks costs, in truth, hardly more than the best range that brute force finds."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2.5, size=4000).astype(np.float32)
    made = filled(values[:1000], values[1000:])

    def cost(clip, levels=7):
        step = clip / levels
        return np.square(np.clip(np.rint(values / step), -levels, levels) * step - values).mean()

    best = min(cost(clip) for clip in np.linspace(made.largest / 200, made.largest, 200))
    chosen = made.least_error(levels=7)
    assert chosen < made.largest * 0.8
    assert cost(chosen) < 1.05 * best
    assert cost(made.largest) > 1.5 * best


def test_without_outliers_nothing_is_clipped():
    values = np.random.default_rng(0).uniform(-1, 1, 5000)
    assert filled(values).least_error() > 0.98


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_raises(bad):
    made = filled([1.0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        made.add(np.array([0.5, bad], np.float32))
    assert made.counts.sum() == 1
