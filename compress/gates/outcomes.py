"""What measuring hands to deciding: paired per-item outcomes, scores, facts about a file, or the reason there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Per-item results of the reference and of the candidate on the same items, in the same order.

    `reference` and `candidate` are float64 arrays of shape (n,): 1.0 right and 0.0 wrong where `binary`, else any
    number where more is better. `slices` names, per dimension ("size", "condition"), the slice of each item.
    `clusters` groups items that are not independent (captions of one image); None when each stands alone.
    """

    items: tuple[str, ...]
    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]
    binary: bool = True
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clusters: tuple[str, ...] | None = None
    chance: float = 0.0


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
