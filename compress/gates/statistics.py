"""What outcomes say about a candidate, as scores with bounds: its drop, its level, its rank correlation.

Bounds come from `intervals`: score bounds for right and wrong, the BCa bootstrap over whole clusters for the rest.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.gates.intervals import Bounds, Floats, bca_bounds, paired_bounds, wilson
from compress.gates.outcomes import Outcomes

Mask = NDArray[np.bool_]

SEED: Final = 0
"""Of every bootstrap that a verdict rests on: the same outcomes give the same verdict."""

_DIFFERING: Final = 20
"""Clusters with a difference that a bootstrap needs: with fewer, its bound is wrong up to four times too often."""


def drop(outcomes: Outcomes, mask: Mask, confidence: float, seed: int = SEED) -> Score:
    """How much worse the candidate is than the reference on the masked items, with one-sided bounds.

    Score bounds where items are right or wrong and stand alone, else the clustered bootstrap, or a coarser
    bound where too few clusters differ for a bootstrap to know anything. One item, or one cluster, has no bounds.
    """
    lost, n = (outcomes.reference - outcomes.candidate)[mask], int(mask.sum())
    sums, totals = per_cluster(outcomes, lost, mask)
    value = drop_value(outcomes, mask)
    if len(sums) < 2:
        return Score(value, None, None, n)
    if outcomes.binary and len(sums) == n:
        bounds = paired_bounds(int(np.sum(lost > 0)), int(np.sum(lost < 0)), n, confidence)
    elif np.count_nonzero(sums) < _DIFFERING or np.ptp(lost) == 0:
        bounds = _coarse_bounds(sums, totals, float(np.abs(lost).max()), confidence)
    else:
        bounds = bca_bounds(sums, totals, confidence, seed)
    return _score(value, bounds, n)


def drop_value(outcomes: Outcomes, mask: Mask) -> float:
    """The drop without its bounds; exact for right and wrong, so that one equal to the margin is seen as such."""
    sums, totals = per_cluster(outcomes, (outcomes.reference - outcomes.candidate)[mask], mask)
    return math.fsum(sums) / math.fsum(totals) if len(sums) else math.nan


def _coarse_bounds(sums: Floats, totals: Floats, largest: float, confidence: float) -> Bounds:
    """Bounds that hold for few differences: a cluster that lost anything counts as wholly lost, and as the largest."""
    whole, n = max(1.0, largest) * float(totals.max() / totals.mean()), len(sums)
    low, _ = paired_bounds(0, int(np.sum(sums < 0)), n, confidence)
    _, high = paired_bounds(int(np.sum(sums > 0)), 0, n, confidence)
    return whole * low, whole * high


def level(outcomes: Outcomes, which: Floats, mask: Mask, confidence: float, seed: int = SEED) -> Score:
    """The mean of `which` (the outcomes' reference or candidate) on the masked items, with a two-sided interval."""
    values, n = which[mask], int(mask.sum())
    sums, totals = per_cluster(outcomes, values, mask)
    if n == 0:
        return Score(math.nan, None, None, n)
    value = math.fsum(sums) / math.fsum(totals)
    if outcomes.binary and len(sums) == n:
        return _score(value, wilson(int(values.sum()), n, confidence), n)
    if len(sums) > 1 and np.ptp(values) == 0:  # nothing to draw from; a cosine of 1 everywhere is one of 1
        return _score(value, (value, value), n)
    return _score(value, bca_bounds(sums, totals, (1 + confidence) / 2, seed), n)


def scatter(outcomes: Outcomes, mask: Mask) -> float:
    """Mean square of the paired differences, as large as items that stand alone would need it to vary as much.

    Each cluster's difference counts as one, so that dependent items ask for more of them. One discordant cluster is
    added: none seen in a few items is not none.
    """
    lost, n = (outcomes.reference - outcomes.candidate)[mask], int(mask.sum())
    sums, totals = per_cluster(outcomes, lost, mask)
    sums = sums * (n / totals.sum())  # in items: a weight counts against the mean weight
    return (math.fsum(sums * sums) + float(np.max(sums * sums, initial=0.0) or 1.0)) / n


def comparable(outcomes: Outcomes) -> bool:
    """Whether the reference has results of its own, as it has not where every value is a cosine with itself."""
    return outcomes.binary or outcomes.weights is not None or bool(np.ptp(outcomes.reference) > 0)


def independent(outcomes: Outcomes, mask: Mask) -> bool:
    """Whether the masked items are right or wrong and none depends on another: then tables of counts say it all."""
    return outcomes.binary and len(np.unique(_clusters(outcomes, mask))) == int(mask.sum())


def per_cluster(outcomes: Outcomes, values: Floats, mask: Mask) -> tuple[Floats, Floats]:
    """Weighted sum, and sum of the weights (1 each where there are none), of the masked items' values by cluster.

    `values` (k,) belong to the k masked items.
    """
    weights = np.ones_like(values) if outcomes.weights is None else outcomes.weights[mask]
    index = _clusters(outcomes, mask)
    if not len(index):
        return np.empty(0), np.empty(0)
    return np.bincount(index, values * weights).astype(np.float64), np.bincount(index, weights).astype(np.float64)


def _clusters(outcomes: Outcomes, mask: Mask) -> NDArray[np.int64]:
    """The number of the cluster of each masked item."""
    if outcomes.clusters is None:
        return np.arange(int(mask.sum()))
    made: NDArray[np.int64] = np.unique(np.asarray(outcomes.clusters)[mask], return_inverse=True)[1]
    return made


def _score(value: float, bounds: Bounds, n: int) -> Score:
    known = n >= 2 and math.isfinite(value) and all(map(math.isfinite, bounds))
    return Score(value, *bounds, n) if known else Score(value, None, None, n)
