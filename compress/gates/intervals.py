"""One-sided confidence bounds from counts and arrays. Pure; scipy on first use.

Sources: T. Tango, Statistics in Medicine 17 (1998) 891-908, the score interval for the difference of paired
proportions. B. Efron, JASA 82 (1987) 171-185, the BCa bootstrap, here over clusters (Davison & Hinkley 1997, 3.8).
E. B. Wilson, JASA 22 (1927) 209-212. C. J. Clopper & E. S. Pearson, Biometrika 26 (1934) 404-413.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

RESAMPLES: Final = 9_999

CONTINUITY: Final = 0.5
"""Items that are added to a loss before its bound is looked for. Without it a candidate that loses the whole margin
passes up to 5.7 times in a hundred where one is promised in twenty; with it at most 5.0 times."""

_BATCH: Final = 2_000_000
"""Resampled numbers held at once: 16 MB, however many clusters there are."""

_UNKNOWN: Final = (math.nan, math.nan)


def quantile(probability: float) -> float:
    """The normal quantile of a probability."""
    from scipy.stats import norm

    return float(norm.ppf(probability))


def tango_bounds(b: int, c: int, n: int, confidence: float) -> Bounds:
    """One-sided score bounds (low, high), each at `confidence`, for the drop p_reference - p_candidate.

    `b` items are right in the reference and wrong in the candidate, `c` the other way round, of `n` in all.
    """
    z = quantile(confidence)
    return -_tango_high(c, b, n, z), _tango_high(b, c, n, z)


def _tango_high(b: int, c: int, n: int, z: float, continuity: float = 0.0) -> float:
    """The largest drop D that the score test does not reject: the root of (b - c - nD) + z * sqrt(n * variance(D)).

    `continuity` is added to b - c, which comes in whole items while the test takes it for a continuous number.
    """
    from scipy.optimize import brentq

    if b == n:
        return 1.0
    if b == 0 and c in (0, n):  # the statistic has a closed form, and starts at 0/0
        return (z * z - c) / (n + z * z)

    def excess(drop: float) -> float:
        return b - c + continuity - n * drop + z * math.sqrt(n * restricted_variance(b, c, n, drop))

    return float(brentq(excess, (b - c) / n, 1.0))


def restricted_variance(b: Any, c: Any, n: float, drop: float) -> Any:
    """Variance of one paired difference, with the likeliest discordance given that the drop is `drop` (Tango's q21).

    Numbers, or arrays of numbers, of items; with n = 1, shares of them.
    """
    linear = -b - c + (2 * n - b + c) * drop
    discriminant = linear * linear + 8 * n * c * drop * (1 - drop)
    q = (np.sqrt(np.maximum(discriminant, 0.0)) - linear) / (4 * n)
    return np.maximum(2 * q + drop * (1 - drop), 0.0)


def paired_bounds(b: int, c: int, n: int, confidence: float) -> Bounds:
    """One-sided bounds (low, high) for the drop that hold as often as they say, however few items differ.

    Tango's, corrected for continuity by CONTINUITY; an end without counterexamples (c = 0: nothing was gained, the drop
    is the share that was lost) is the exact binomial one. docs/decisions/013 has the rates.
    """
    return -_paired_high(c, b, n, confidence), _paired_high(b, c, n, confidence)


def _paired_high(b: int, c: int, n: int, confidence: float) -> float:
    return (
        _tango_high(b, c, n, quantile(confidence), CONTINUITY) if c else float(clopper_pearson_high(b, n, confidence))
    )


def clopper_pearson_high(k: Any, n: int, confidence: float) -> Any:
    """Exact upper bounds for shares of which k (a number or an array) of n were seen."""
    from scipy.stats import beta

    return np.where(np.asarray(k) >= n, 1.0, beta.ppf(confidence, np.asarray(k) + 1.0, np.maximum(n - k, 1)))


def wilson(k: int, n: int, confidence: float) -> Bounds:
    """Two-sided Wilson score interval for k of n."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bca_bounds(sums: Floats, totals: Floats, confidence: float, seed: int = 0) -> Bounds:
    """One-sided BCa bounds (low, high), each at `confidence`, for sum(sums) / sum(totals), both of shape (clusters,).

    With the sum and the number of the values of each cluster that is their mean; with edits and characters it is the
    error rate. Whole clusters are drawn, so that what is inside one may depend on each other. Fewer than two clusters,
    or a bootstrap that degenerates, give (nan, nan).
    """
    if len(sums) < 2:
        return _UNKNOWN
    return bca(
        (sums, totals),
        lambda s, k, axis=-1: s.sum(axis=axis) / k.sum(axis=axis),
        {"vectorized": True, "n_resamples": RESAMPLES, "batch": max(1, _BATCH // len(sums))},
        confidence,
        seed,
    )


def bca(
    data: tuple[NDArray[Any], ...], statistic: Callable[..., Any], options: dict[str, Any], confidence: float, seed: int
) -> Bounds:
    """One-sided BCa bounds (low, high), each at `confidence`, of any statistic of paired arrays (n,).

    `options` are those of scipy's bootstrap. (nan, nan) where it degenerates.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # it is told by nan
        interval = bootstrap(
            data,
            statistic,
            paired=True,
            confidence_level=2 * confidence - 1,
            method="BCa",
            rng=np.random.default_rng(seed),
            **options,
        ).confidence_interval
    return float(interval.low), float(interval.high)
