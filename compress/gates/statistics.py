"""Intervals for paired differences, and the number of items a gate needs. Pure functions on arrays; scipy on first use.

Sources: T. Tango, Statistics in Medicine 17 (1998) 891-908, the score interval for the difference of paired
proportions. B. Efron, JASA 82 (1987) 171-185, the BCa bootstrap, here over clusters (Davison & Hinkley 1997, 3.8).
E. B. Wilson, JASA 22 (1927) 209-212.
"""

from __future__ import annotations

import math
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.gates.outcomes import Outcomes

Floats = NDArray[np.float64]

_RESAMPLES: Final = 9_999
_DIFFERING: Final = 20
"""Clusters with a difference that a bootstrap needs: with fewer, its bound is wrong up to four times too often."""

_BATCH: Final = 2_000_000
"""Resampled numbers held at once: 16 MB, however many clusters there are."""


def tango_bounds(b: int, c: int, n: int, confidence: float) -> tuple[float, float]:
    """One-sided score bounds (low, high), each at `confidence`, for the drop p_reference - p_candidate.

    `b` items are right in the reference and wrong in the candidate, `c` the other way round, of `n` in all.
    """
    z = _quantile(confidence)
    return -_tango_high(c, b, n, z), _tango_high(b, c, n, z)


def _tango_high(b: int, c: int, n: int, z: float) -> float:
    """The largest drop D that the score test does not reject: the root of (b - c - nD) + z * sqrt(n * variance(D))."""
    from scipy.optimize import brentq

    if b == n:
        return 1.0
    if b == 0 and c in (0, n):  # the statistic has a closed form, and starts at 0/0
        return (z * z - c) / (n + z * z)

    def excess(drop: float) -> float:
        return b - c - n * drop + z * math.sqrt(n * _tango_variance(b, c, n, drop))

    return float(brentq(excess, (b - c) / n, 1.0))


def _tango_variance(b: int, c: int, n: int, drop: float) -> float:
    """Variance of one paired difference, with the likeliest discordance given that the drop is `drop` (Tango's q21)."""
    linear = -b - c + (2 * n - b + c) * drop
    discriminant = linear * linear + 8 * n * c * drop * (1 - drop)
    q = (math.sqrt(max(discriminant, 0.0)) - linear) / (4 * n)
    return max(2 * q + drop * (1 - drop), 0.0)


def bca_bounds(
    values: Floats, clusters: tuple[str, ...] | None, confidence: float, seed: int = 0
) -> tuple[float, float]:
    """One-sided BCa bootstrap bounds (low, high), each at `confidence`, for the mean of `values` (n,).

    Whole clusters are drawn, so that items of one cluster may depend on each other. Values that are all equal bound
    themselves; fewer than two clusters, or a bootstrap that degenerates, give (nan, nan).
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    sums, counts = _per_cluster(values, clusters)
    if len(sums) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # it is told by nan
        interval = bootstrap(
            (sums, counts),
            lambda s, k, axis=-1: s.sum(axis=axis) / k.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=max(1, _BATCH // len(sums)),
            confidence_level=2 * confidence - 1,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def drop(outcomes: Outcomes, mask: NDArray[np.bool_], confidence: float, seed: int = 0) -> Score:
    """How much worse the candidate is than the reference on the masked items, with one-sided bounds.

    Tango's score bounds where items are right or wrong and stand alone, else the clustered bootstrap, or a coarser
    bound where too few clusters differ for a bootstrap to know anything. One item, or one cluster, has no bounds.
    """
    lost = (outcomes.reference - outcomes.candidate)[mask]
    n, clusters = len(lost), _masked(outcomes.clusters, mask)
    if n == 0:
        return Score(math.nan, None, None, 0)
    value = math.fsum(lost) / n  # exact for right and wrong, so that a drop equal to the margin is seen as such
    sums, _ = _per_cluster(lost, clusters)
    if len(sums) < 2:
        return Score(value, None, None, n)
    if outcomes.binary and len(sums) == n:
        low, high = tango_bounds(int(np.sum(lost > 0)), int(np.sum(lost < 0)), n, confidence)
    elif np.count_nonzero(sums) < _DIFFERING or np.ptp(lost) == 0:
        low, high = _coarse_bounds(lost, clusters, confidence)
    else:
        low, high = bca_bounds(lost, clusters, confidence, seed)
    return _score(value, low, high, n)


def _coarse_bounds(lost: Floats, clusters: tuple[str, ...] | None, confidence: float) -> tuple[float, float]:
    """Bounds that hold for few differences: a cluster that lost anything counts as wholly lost, and as the largest."""
    sums, counts = _per_cluster(lost, clusters)
    z, whole = _quantile(confidence), max(1.0, float(np.abs(lost).max())) * float(counts.max() / counts.mean())
    high = whole * _tango_high(int(np.sum(sums > 0)), 0, len(sums), z)
    return -whole * _tango_high(int(np.sum(sums < 0)), 0, len(sums), z), high


def level(outcomes: Outcomes, which: Floats, mask: NDArray[np.bool_], confidence: float, seed: int = 0) -> Score:
    """The mean of `which` (the outcomes' reference or candidate) on the masked items, with a two-sided interval."""
    values, clusters = which[mask], _masked(outcomes.clusters, mask)
    n = len(values)
    if n == 0:
        return Score(math.nan, None, None, 0)
    value = math.fsum(values) / n
    groups = n if clusters is None else len(set(clusters))
    if outcomes.binary and groups == n:
        return _score(value, *wilson(int(values.sum()), n, confidence), n)
    return _score(value, *bca_bounds(values, clusters, (1 + confidence) / 2, seed), n)


def wilson(k: int, n: int, confidence: float) -> tuple[float, float]:
    """Two-sided Wilson score interval for k of n."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def items_needed(
    margin: float, confidence: float, discordance: float, true_drop: float = 0.0, power: float = 0.8
) -> int | None:
    """Smallest n at which a candidate whose true drop is `true_drop` passes with probability `power`.

    Normal approximation; `discordance` is the mean square of a paired difference, which for right and wrong is the
    share of items on which the two differ. None where the drop reaches the margin: no number of items passes it.
    """
    if true_drop >= margin:
        return None
    reach = (_quantile(confidence) + _quantile(power)) / (margin - true_drop)
    return max(2, math.ceil(reach * reach * max(discordance - true_drop * true_drop, 0.0)))


def scatter(outcomes: Outcomes, mask: NDArray[np.bool_]) -> float:
    """Mean square of the paired differences, as large as items that stand alone would need it to vary as much.

    Each cluster's difference counts as one, so that dependent items ask for more of them. One discordant cluster is
    added: none seen in a few items is not none.
    """
    lost = (outcomes.reference - outcomes.candidate)[mask]
    sums, _ = _per_cluster(lost, _masked(outcomes.clusters, mask))
    return (math.fsum(sums * sums) + float(np.max(sums * sums, initial=0.0) or 1.0)) / len(lost)


def _per_cluster(values: Floats, clusters: tuple[str, ...] | None) -> tuple[Floats, Floats]:
    """Sum and number of the values of each cluster."""
    if clusters is None:
        return values, np.ones_like(values)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, values).astype(np.float64), np.bincount(index).astype(np.float64)


def _masked(labels: tuple[str, ...] | None, mask: NDArray[np.bool_]) -> tuple[str, ...] | None:
    return None if labels is None else tuple(label for label, kept in zip(labels, mask, strict=True) if kept)


def _score(value: float, low: float, high: float, n: int) -> Score:
    known = n >= 2 and math.isfinite(low) and math.isfinite(high)
    return Score(value, low, high, n) if known else Score(value, None, None, n)


def _quantile(probability: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(probability))
