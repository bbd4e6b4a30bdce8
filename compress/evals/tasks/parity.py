"""How far the embeddings have moved: cosine with the reference, kept neighbours, flipped answers, batch effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.data import source
from compress.data.items import Request
from compress.evals.ranking import Rows, cosines, flips, neighbour_overlap, similarities, unit
from compress.evals.task import ALONE, Embeddings, Measured, TaskData, TaskSpec, places, with_default
from compress.gates import statistics
from compress.gates.outcomes import Outcomes

NEIGHBOURS: Final = 10
_RESAMPLES: Final = 1000
_TAIL: Final = 0.05
"""Intervals hold each bound with 95 % confidence on its own, as gates ask for one side."""


class Spec(TaskSpec):
    """Any images with captions; nothing is known to be right, only what the reference says."""

    kind: Literal["parity"]


def load(spec: Spec, request: Request) -> TaskData:
    """Images and each of their captions once."""
    items = source.load(spec.data, with_default(spec, request))
    place = places(text for captions in items.captions for text in captions)
    return TaskData(items.images, tuple(place), items.ids, items.digest)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """Per-item cosines by tower, and scores over the towers there are; `p1_cosine` is that of the worse tower."""
    texts = tuple(f"text-{at}" for at in range(len(data.texts)))
    made: dict[str, Outcomes | Score] = {}
    towers = []
    for tower, items, old, new in (
        ("vision", data.ids, reference.images, candidate.images),
        ("text", texts, reference.texts, candidate.texts),
    ):
        if old.shape[1]:
            towers.append(cosines(unit(old), unit(new)))
            made[f"{tower}_cosine"] = Outcomes(items, np.ones(len(items)), towers[-1], binary=False)
    made["p1_cosine"] = first_percentile(towers)
    made["min_cosine"] = _lowest(min(each.min() for each in towers), sum(map(len, towers)))
    if reference.images.shape[1]:
        near = max(1, min(NEIGHBOURS, len(data.ids) - 2))
        overlap = neighbour_overlap(unit(reference.images), unit(candidate.images), near)
        made["neighbour_overlap"] = mean(overlap[~np.isnan(overlap)])
    if len(towers) == 2:
        made["flips"] = share(flips(similarities(*reference.joint()), similarities(*candidate.joint())))
    if candidate.batch_cosine is not None:
        made["batch_cosine"] = _lowest(candidate.batch_cosine, sum(min(ALONE, len(each)) for each in towers))
    return made


def _lowest(value: float, n: int) -> Score:
    """The lowest of n values: a fact about these items."""
    return Score(float(value), float(value), float(value), n)


def first_percentile(towers: Sequence[Rows]) -> Score:
    """The lowest 1st percentile (an observed value, never interpolated) of the towers, with a bootstrap interval.

    Percentiles of the resamples, not BCa: its acceleration comes from leaving items out one by one, and a quantile then
    takes two values only, which says nothing about its skewness (Efron & Tibshirani 1993, chapter 11).
    """
    rng = np.random.default_rng(statistics.SEED)
    lows = [np.percentile(rng.choice(each, (_RESAMPLES, len(each))), 1, axis=1, method="lower") for each in towers]
    value = min(float(np.percentile(each, 1, method="lower")) for each in towers)

    if (n := min(map(len, towers))) < 2:
        return Score(value, None, None, n)
    low, high = (float(end) for end in np.quantile(np.min(lows, axis=0), (_TAIL, 1 - _TAIL)))
    return Score(value, min(low, value), max(high, value), n)


def mean(values: Rows) -> Score:
    """The mean of one value per item, with its BCa interval."""
    items = Outcomes(tuple(map(str, range(len(values)))), np.zeros(len(values)), values, binary=False)
    return statistics.level(items, values, np.ones(len(values), np.bool_), 1 - 2 * _TAIL)


def share(events: NDArray[np.bool_]) -> Score:
    """A share with its exact (Clopper-Pearson) interval."""
    from scipy.stats import binomtest

    number, total = int(events.sum()), len(events)
    ends = binomtest(number, total).proportion_ci(1 - 2 * _TAIL, method="exact")
    return Score(number / total, float(ends.low), float(ends.high), total)
