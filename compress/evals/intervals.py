"""Scores of two models on the same items that are no mean of differences: a ratio of recalls, a gap of two numbers.

Intervals are BCa bootstraps (B. Efron, JASA 82 (1987) 171-185) over clusters, by scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.gates import statistics
from compress.gates.intervals import bca as resampled
from compress.gates.outcomes import Outcomes

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights (draws, n), how often each of n things was drawn, to a number for each draw."""

_CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 4_999
_DIFFERING: Final = 20
"""Clusters that differ, which a bootstrap needs; with fewer the bounds of the drop are used, which are coarse."""

_BATCH: Final = 2_000_000


def bca(count: int, statistic: Statistic, seed: int) -> tuple[float, float]:
    """One-sided bounds (low, high), each at 95 %, of a statistic of `count` things; nan where the bootstrap fails."""

    def by_weight(places: NDArray[np.int64], axis: int = -1) -> Floats:
        rows = np.moveaxis(np.atleast_2d(places), axis, -1).reshape(-1, places.shape[axis])
        flat = (rows + np.arange(len(rows))[:, None] * count).ravel()
        drawn = np.bincount(flat, minlength=len(rows) * count).reshape(len(rows), count).astype(np.float64)
        return statistic(drawn).reshape(places.shape[:-1])

    options = {"vectorized": True, "n_resamples": _RESAMPLES, "batch": max(1, _BATCH // count)}
    return resampled((np.arange(count),), by_weight, options, _CONFIDENCE, seed)


def ratio(outcomes: Outcomes, seed: int = 0) -> Score:
    """The candidate's share of right items divided by the reference's.

    No interval, and so no decision, where the reference is never right or one cluster is all there is.
    """
    n, right = len(outcomes.items), float(outcomes.reference.sum())
    if not right:
        return Score(math.nan, None, None, n)
    value = float(outcomes.candidate.sum()) / right
    clusters = outcomes.items if outcomes.clusters is None else outcomes.clusters
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    old, new = np.bincount(index, outcomes.reference), np.bincount(index, outcomes.candidate)
    if len(old) < 2:
        return Score(value, None, None, n)
    if np.count_nonzero(old != new) < _DIFFERING:
        lost, share = statistics.drop(outcomes, np.ones(n, np.bool_), _CONFIDENCE), right / n
        if lost.low is None or lost.high is None:
            return Score(value, None, None, n)
        return Score(value, 1 - lost.high / share, 1 - lost.low / share, n)
    low, high = bca(len(old), lambda weights: (weights @ new) / (weights @ old), seed)
    known = math.isfinite(low) and math.isfinite(high)
    return Score(value, low, high, n) if known else Score(value, None, None, n)


def distance(value: float, ends: tuple[float, float], n: int) -> Score:
    """The size of a signed gap, from the interval of the gap itself: around zero a bootstrap of the size is biased."""
    low, high = ends
    if n < 2 or not (math.isfinite(low) and math.isfinite(high)):
        return Score(abs(value), None, None, n)
    near = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Score(abs(value), min(near, abs(value)), max(abs(low), abs(high), abs(value)), n)
