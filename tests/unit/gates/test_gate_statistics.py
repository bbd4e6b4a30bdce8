"""Intervals against published numbers, closed forms, a brute-force search and exact enumeration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gates_sample import continuous, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, multinomial, norm

from compress.gates.intervals import bca_bounds, paired_bounds, tango_bounds, wilson
from compress.gates.outcomes import Outcomes, Unmeasured, paired
from compress.gates.statistics import drop, level


def _all(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


def _mean_bounds(values: np.ndarray, clusters: tuple[str, ...] | None, seed: int = 0) -> tuple[float, float]:
    """Of the mean of values, one-sided, each with 95 %."""
    labels = range(len(values)) if clusters is None else clusters
    _, index = np.unique(labels, return_inverse=True)
    return bca_bounds(np.bincount(index, values), np.bincount(index).astype(float), 0.95, seed)


@pytest.mark.parametrize(
    ("b", "c", "n", "low", "high"),
    [  # Fagerland, Lydersen & Laake 2013: Bentur's and Cavo's tables, 95 % two-sided
        pytest.param(1, 7, 21, -0.517, -0.026, id="airway"),
        pytest.param(6, 16, 161, -0.1240, -0.0054, id="response"),
    ],
)
def test_tango_published(b: int, c: int, n: int, low: float, high: float) -> None:
    digits = 3 if n == 21 else 4
    assert tuple(round(end, digits) for end in tango_bounds(b, c, n, 0.975)) == (low, high)


def _score_statistic(b: int, c: int, n: int, drop_: float) -> float:
    """The score test from its definition: the nuisance parameter is found by maximising the likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        cells = ((b, q + drop_), (c, q), (n - b - c, 1 - 2 * q - drop_))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    bounds = (max(0.0, -drop_), (1 - drop_) / 2)
    q = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * drop_) / math.sqrt(n * (2 * q + drop_ * (1 - drop_)))


@pytest.mark.parametrize(
    ("b", "c", "n"),
    [(0, 1, 10), (1, 0, 10), (3, 1, 40), (7, 7, 60), (0, 5, 30), (30, 10, 500), (12, 2, 14), (9, 0, 10)],
)
def test_tango_is_the_score_test_inverted(b: int, c: int, n: int) -> None:
    grid = np.linspace(-0.9995, 0.9995, 4000)  # a step of 0.0005
    statistic = np.array([_score_statistic(b, c, n, each) for each in grid])
    kept_high = grid[statistic >= -norm.ppf(0.95)]
    kept_low = grid[statistic <= norm.ppf(0.95)]
    low, high = tango_bounds(b, c, n, 0.95)
    assert high == pytest.approx(kept_high.max(), abs=0.0006)
    assert low == pytest.approx(kept_low.min(), abs=0.0006)


def test_tango_extremes() -> None:
    z2 = norm.ppf(0.95) ** 2
    assert tango_bounds(0, 0, 100, 0.95) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    assert tango_bounds(100, 0, 100, 0.95) == pytest.approx(((100 - z2) / (100 + z2), 1.0))
    assert tango_bounds(0, 100, 100, 0.95) == pytest.approx((-1.0, (z2 - 100) / (100 + z2)))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000), st.floats(0.51, 0.999))
def test_tango_laws(b: int, c: int, rest: int, confidence: float) -> None:
    n = b + c + rest
    if n == 0:
        return
    for bounds in (tango_bounds, paired_bounds):
        low, high = bounds(b, c, n, confidence)
        assert -1 <= low <= (b - c) / n <= high <= 1
        assert bounds(c, b, n, confidence) == pytest.approx((-high, -low))
        if rest:
            assert bounds(b + 1, c, n, confidence)[1] > high


@pytest.mark.parametrize("discordance", [0.02, 0.0204, 0.025, 0.05, 0.10])
@pytest.mark.parametrize("n", [45, 95, 139, 150, 300, 773])
def test_a_drop_of_the_margin_passes_one_time_in_twenty(n: int, discordance: float) -> None:
    """Exact: every table (b, c) with its probability, true drop = margin = 2 points; where nothing is gained too."""
    cells = ((discordance + 0.02) / 2, (discordance - 0.02) / 2, 1 - discordance)
    passes = 0.0
    for b in range(60):
        tables = np.array([(b, c, n - b - c) for c in range(60)])
        for (_, c, _), chance in zip(tables.tolist(), multinomial.pmf(tables, n, cells), strict=True):
            passes += chance if chance > 1e-9 and paired_bounds(b, c, n, 0.95)[1] < 0.02 else 0.0
    assert passes <= 0.05


def test_half_an_item_is_added_to_a_loss() -> None:
    """The bound is where the score statistic, with half an item more lost, is at the normal quantile."""
    high = paired_bounds(6, 4, 400, 0.95)[1]
    linear = -10 + (800 - 6 + 4) * high
    q = (math.sqrt(linear**2 + 8 * 400 * 4 * high * (1 - high)) - linear) / 1600
    spread = math.sqrt(400 * (2 * q + high * (1 - high)))
    assert (400 * high - 2 - 0.5) / spread == pytest.approx(norm.ppf(0.95))


def test_score_bound_alone_is_too_low_where_nothing_is_gained() -> None:
    """Two lost of 300: below 2 points by the score bound, which a true drop of 2 points reaches in 6 % of the cases."""
    assert tango_bounds(2, 0, 300, 0.95)[1] < 0.02 < paired_bounds(2, 0, 300, 0.95)[1]
    assert binom.cdf(2, 300, 0.02) > 0.06


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 50), (7, 0, 300), (0, 9, 300), (40, 0, 40)])
def test_an_end_without_counterexamples_is_exact(b: int, c: int, n: int) -> None:
    low, high = paired_bounds(b, c, n, 0.95)
    if c == 0:
        assert high == pytest.approx(binomtest(b, n).proportion_ci(0.9, method="exact").high)
    if b == 0:
        assert low == pytest.approx(-binomtest(c, n).proportion_ci(0.9, method="exact").high)


def test_wilson_by_hand() -> None:
    z = norm.ppf(0.975)
    middle, half = 0.9 + z * z / 200, z * math.sqrt(0.9 * 0.1 / 100 + z * z / 40_000)
    ends = ((middle - half) / (1 + z * z / 100), (middle + half) / (1 + z * z / 100))
    assert wilson(90, 100, 0.95) == pytest.approx(ends)
    assert wilson(0, 50, 0.95)[0] == 0.0


def test_bca_of_many_independent_values_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.01, 0.2, size=2000)
    half = norm.ppf(0.95) * values.std() / math.sqrt(len(values))
    expected = (values.mean() - half, values.mean() + half)
    assert _mean_bounds(values, None) == pytest.approx(expected, abs=half / 10)


def test_clusters_widen_the_interval() -> None:
    """Five copies of each value say no more than one, and a bootstrap over items would not know."""
    values = np.random.default_rng(1).normal(size=200)
    copies, labels = np.repeat(values, 5), tuple(np.repeat(np.arange(200), 5).astype(str))
    assert _mean_bounds(copies, labels) == pytest.approx(_mean_bounds(values, None), abs=0.01)
    alone = _mean_bounds(copies, None)
    assert alone[1] - alone[0] < 0.5 * (2 * norm.ppf(0.95) / math.sqrt(200))


def test_clusters_of_different_size_weigh_by_their_items() -> None:
    """Against the linearised standard error of a ratio of cluster sums to cluster sizes."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, size=400)
    labels = np.repeat(np.arange(400), sizes)
    values = rng.normal(size=400)[labels] + rng.normal(size=len(labels))
    mean, sums = values.mean(), np.array([values[labels == each].sum() for each in range(400)])
    half = norm.ppf(0.95) * math.sqrt(np.square(sums - mean * sizes).sum()) / len(labels)
    bounds = _mean_bounds(values, tuple(labels.astype(str)))
    assert bounds == pytest.approx((mean - half, mean + half), abs=half / 10)


def test_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(2).normal(size=100)
    assert _mean_bounds(values, None, seed=7) == _mean_bounds(values, None, seed=7)


def test_bootstrap_degenerate() -> None:
    same = continuous(np.full(5, 0.25))
    score = level(same, same.candidate, _all(5), 0.95)
    assert (score.value, score.low, score.high) == (0.25, 0.25, 0.25)
    assert all(map(math.isnan, _mean_bounds(np.zeros(5), None)))
    assert all(map(math.isnan, _mean_bounds(np.zeros(5), ("a",) * 5)))
    assert all(map(math.isnan, _mean_bounds(np.zeros(1), None)))


def test_drop_is_exact_at_the_margin() -> None:
    for n in (50, 100, 150, 700, 1500):
        assert drop(outcomes(n, lost=n // 50, wrong=3), _all(n), 0.95).value == 0.02


def test_drop_uses_tango_where_every_cluster_has_one_item() -> None:
    plain = drop(outcomes(100, lost=3, gained=1), _all(100), 0.95)
    single = drop(outcomes(100, lost=3, gained=1, clusters=tuple(map(str, range(100)))), _all(100), 0.95)
    assert plain == single
    assert (plain.low, plain.high) == paired_bounds(3, 1, 100, 0.95)


@pytest.mark.parametrize("n", [0, 1])
def test_drop_without_bounds(n: int) -> None:
    assert not drop(outcomes(n), _all(n), 0.95).decidable
    assert not drop(outcomes(4, clusters=("a",) * 4), _all(4), 0.95).decidable


def test_no_difference_in_few_clusters_proves_little() -> None:
    """Where no image of 30 lost anything, one in ten may."""
    labels = tuple(np.repeat(np.arange(30), 5).astype(str))
    score = drop(outcomes(150, clusters=labels), _all(150), 0.95)
    assert score.high is not None
    assert score.high == pytest.approx(1 - 0.05 ** (1 / 30))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=25), st.integers(1, 4))
def test_drop_lies_within_its_bounds(values: list[float], groups: int) -> None:
    labels = tuple(str(index % (groups + 1)) for index in range(len(values)))
    score = drop(continuous(values, 0.0, clusters=labels), _all(len(values)), 0.95)
    if score.decidable:
        assert score.low is not None
        assert score.high is not None
        assert score.low - 1e-12 <= score.value <= score.high + 1e-12


def test_clustered_drop_of_the_margin_rarely_passes() -> None:
    """60 images with 3 captions each, one image in ten changes: a plain bootstrap would pass 11 %."""
    passed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        kind = np.repeat(rng.choice([1.0, -1.0, 0.0], size=60, p=[0.06, 0.04, 0.9]), 3)
        labels = tuple(np.repeat(np.arange(60), 3).astype(str))
        score = drop(continuous(-kind, 0.0, clusters=labels), _all(180), 0.95)
        passed += score.high is not None and score.high < 0.02
    assert passed <= 10


def test_level_of_continuous_and_binary() -> None:
    scored = outcomes(100, lost=10)
    assert level(scored, scored.candidate, _all(100), 0.95).low == pytest.approx(wilson(90, 100, 0.95)[0])
    cosines = continuous(np.linspace(0.9, 1.0, 50))
    score = level(cosines, cosines.candidate, _all(50), 0.95)
    assert score.value == pytest.approx(0.95)
    assert score.decidable


def _typed(edits: np.ndarray, characters: np.ndarray, **other: Any) -> Outcomes:
    """Texts that the reference reads without an error and the candidate with some, weighed by their length."""
    return continuous(1 - edits / characters, 1.0, weights=characters.astype(float), **other)


def test_weights_make_the_error_rate_of_all_characters() -> None:
    measured = _typed(np.array([1.0, 0.0, 3.0]), np.array([2.0, 8.0, 10.0]))
    assert drop(measured, _all(3), 0.95).value == pytest.approx(4 / 20)
    assert level(measured, measured.candidate, _all(3), 0.95).value == pytest.approx(16 / 20)
    assert drop(measured, np.array([True, True, False]), 0.95).value == pytest.approx(1 / 10)


def test_an_item_of_weight_two_is_two_items_of_one_cluster() -> None:
    rng = np.random.default_rng(5)
    weights, values = rng.integers(1, 4, size=80), rng.normal(size=80)
    weighed = continuous(values, 0.0, weights=weights.astype(float))
    labels = tuple(np.repeat(np.arange(80), weights).astype(str))
    copied = continuous(np.repeat(values, weights), 0.0, clusters=tuple(f"{label:>2}" for label in labels))
    one, other = drop(weighed, _all(80), 0.95), drop(copied, _all(len(labels)), 0.95)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_weighed_error_rate_has_the_linearised_standard_error() -> None:
    rng = np.random.default_rng(6)
    pages, characters = np.repeat(np.arange(300), 2), rng.integers(4, 40, size=600)
    edits = rng.binomial(characters, rng.beta(1, 20, size=300)[pages])
    measured = _typed(edits, characters, clusters=tuple(pages.astype(str)))
    rate = edits.sum() / characters.sum()
    spread = math.sqrt(np.square(np.bincount(pages, edits) - rate * np.bincount(pages, characters)).sum())
    half = norm.ppf(0.95) * spread / characters.sum()
    score = drop(measured, _all(600), 0.95)
    assert (score.low, score.high) == pytest.approx((rate - half, rate + half), abs=half / 6)


@pytest.mark.parametrize(
    "weights",
    [np.ones(9), np.zeros(10), np.full(10, math.nan), -np.ones(10)],
    ids=["ragged", "zero", "nan", "negative"],
)
def test_weights_that_are_none_decide_nothing(weights: np.ndarray) -> None:
    assert isinstance(paired(continuous(np.ones(10), weights=weights)), Unmeasured)
    assert isinstance(paired(outcomes(10, weights=np.ones(10))), Unmeasured)
    assert isinstance(paired(continuous(np.ones(10), weights=np.ones(10))), Outcomes)
