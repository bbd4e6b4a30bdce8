"""Ratios and gaps with their intervals: by hand, against a bootstrap written out, and their coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from compress.evals import intervals
from compress.gates.outcomes import Outcomes


def outcomes(before, after, clusters=None):
    names = tuple(str(at) for at in range(len(before)))
    return Outcomes(names, np.array(before, float), np.array(after, float), clusters=clusters)


def test_the_same_answers_are_a_ratio_of_one():
    found = intervals.ratio(outcomes([1, 0, 1, 1] * 200, [1, 0, 1, 1] * 200))
    assert (found.value, found.n) == (1.0, 800)
    assert found.low < 1 <= found.high
    assert found.low > 0.99


def test_a_reference_that_is_never_right_decides_nothing():
    assert not intervals.ratio(outcomes([0, 0, 0], [1, 0, 1])).decidable
    assert not intervals.ratio(outcomes([1, 1], [1, 0], clusters=("a", "a"))).decidable


def drawn(rng, n, before, kept):
    old = rng.random(n) < before
    return old.astype(float), (old & (rng.random(n) < kept)).astype(float)


def test_the_interval_is_that_of_a_bootstrap_over_clusters():
    """Against percentiles of a plain loop: BCa corrects them by little here, and clusters of 5 widen both by much."""
    rng = np.random.default_rng(0)
    old, new = drawn(rng, 200, 0.8, 0.7)
    clusters = tuple(f"c{at // 5}" for at in range(1000))
    found = intervals.ratio(outcomes(np.repeat(old, 5), np.repeat(new, 5), clusters))
    plain = [new[rows].sum() / old[rows].sum() for rows in (rng.integers(200, size=200) for _ in range(4000))]
    assert found.value == pytest.approx(new.sum() / old.sum())
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, (0.05, 0.95)), abs=0.012)
    loose = intervals.ratio(outcomes(np.repeat(old, 5), np.repeat(new, 5)))
    assert (loose.high - loose.low) < 0.6 * (found.high - found.low)


def test_the_lower_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(1)
    misses = sum(intervals.ratio(outcomes(*drawn(rng, 400, 0.7, 0.9)), seed).low > 0.9 for seed in range(60))
    assert misses <= 8  # 3 expected, more than 8 has a chance of 0.3 %


@pytest.mark.parametrize(
    ("value", "ends", "expected"),
    [
        (0.03, (0.01, 0.05), (0.03, 0.01, 0.05)),
        (-0.03, (-0.05, -0.01), (0.03, 0.01, 0.05)),
        (-0.01, (-0.03, 0.02), (0.01, 0.0, 0.03)),
    ],
)
def test_the_size_of_a_gap(value, ends, expected):
    found = intervals.distance(value, ends, 9)
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_a_gap_without_ends_has_none():
    assert not intervals.distance(0.1, (np.nan, np.nan), 9).decidable


def test_a_ratio_has_the_linearised_standard_error():
    """Recall by image with two queries each; the ratio of two means of one sample, by the delta method."""
    rng = np.random.default_rng(8)
    old = (rng.random(1000) < 0.8).astype(float)
    new = np.where(rng.random(1000) < 0.15, 1 - old, old)
    found = intervals.ratio(outcomes(old, new, tuple(np.repeat(np.arange(500), 2).astype(str))))
    value = new.sum() / old.sum()
    half = norm.ppf(0.95) * np.sqrt(np.square((new - value * old).reshape(500, 2).sum(axis=1)).sum()) / old.sum()
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((value - half, value + half), abs=half / 8)
