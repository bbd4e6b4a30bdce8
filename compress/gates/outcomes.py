"""What measuring hands to deciding: paired outcomes, scores, facts about a file, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Per-item results of the reference and of the candidate on the same items, in the same order.

    `reference` and `candidate` are float64 arrays of shape (n,): 1.0 right and 0.0 wrong where `binary`, else any
    number where more is better. `slices` names, per dimension ("size", "condition"), the slice of each item.
    `clusters` groups items that are not independent (captions of one image); None when each stands alone. `chance` is
    what guessing scores, -inf where nobody can guess. `weights` (n,), where values are not binary, says how much each
    item counts (characters of a text, whose value is a rate): a metric is sum(values * weights) / sum(weights).
    """

    items: tuple[str, ...]
    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]
    binary: bool = True
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clusters: tuple[str, ...] | None = None
    chance: float = 0.0
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """What a file was planned to contain and what was found in it, both as name -> value."""

    planned: Mapping[str, str]
    found: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Why a metric has no result: an error, a skip, an overlap. Always inconclusive."""

    reason: str


Measurement = Outcomes | Score | Census | Unmeasured
Measurements = Mapping[str, Measurement]
"""Metric name ("reading.accuracy", "size.ratio") -> what was measured."""


def paired(measurement: Measurement) -> Outcomes | Unmeasured:
    """Outcomes a gate may be decided on, or why there are none.

    A binary candidate that is not finite counts as wrong. Everything else that is not sound (ragged, repeated items,
    a reference or a continuous candidate that is not finite) decides nothing.
    """
    if isinstance(measurement, Unmeasured):
        return measurement
    if not isinstance(measurement, Outcomes):
        return Unmeasured(f"this rule compares paired outcomes, and got {type(measurement).__name__}")
    if flaw := _flaw(measurement):
        return Unmeasured(flaw)
    if not measurement.binary:
        return measurement
    return replace(measurement, candidate=np.where(np.isfinite(measurement.candidate), measurement.candidate, 0.0))


def _flaw(outcomes: Outcomes) -> str:
    """What makes these outcomes unusable, or an empty string."""
    return _misfit(outcomes) or _odd_numbers(outcomes)


def _misfit(outcomes: Outcomes) -> str:
    count, arrays = len(outcomes.items), (outcomes.reference, outcomes.candidate)
    labels = [*outcomes.slices.values(), *([] if outcomes.clusters is None else [outcomes.clusters])]
    if count == 0:
        return "no items"
    if any(array.shape != (count,) for array in arrays) or any(len(each) != count for each in labels):
        return f"outcomes, slices and clusters do not all belong to the same {count} items"
    if len(set(outcomes.items)) != count:
        return "the same item occurs more than once"
    return "" if outcomes.weights is None else _misweighed(outcomes, outcomes.weights)


def _misweighed(outcomes: Outcomes, weights: NDArray[np.float64]) -> str:
    if weights.shape != (len(outcomes.items),):
        return f"weights do not belong to the same {len(outcomes.items)} items"
    if not np.isfinite(weights).all() or not (weights > 0).all():
        return "weights are not all finite and positive"
    return "weights go with numbers, not with right and wrong" if outcomes.binary else ""


def _odd_numbers(outcomes: Outcomes) -> str:
    count, reference, candidate = len(outcomes.items), outcomes.reference, outcomes.candidate
    if np.isnan(outcomes.chance) or outcomes.chance == np.inf:
        return f"chance is {outcomes.chance}"
    if not np.isfinite(reference).all():
        return f"the reference is not finite on {np.count_nonzero(~np.isfinite(reference))} of {count} items"
    finite = candidate[np.isfinite(candidate)]
    if not outcomes.binary:
        broken = count - len(finite)
        return f"the candidate is not finite on {broken} of {count} items" if broken else ""
    if not np.isin(reference, (0.0, 1.0)).all() or not np.isin(finite, (0.0, 1.0)).all():
        return "outcomes said to be right or wrong hold other numbers than 1 and 0"
    return ""
