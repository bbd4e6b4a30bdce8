"""The non-inferiority decision on one set of paired items, shared by the rules that compare with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.gates import sample_size, statistics
from compress.gates.gate import Confidence, GateSpec, Margin
from compress.gates.outcomes import Outcomes
from compress.gates.verdict import Finding, Status

_POWER: Final = 0.9
"""Items are asked for with more power than the usual 0.8: the discordance they are computed from is itself a guess."""

_CAP: Final = 10_000_000
"""More items than this are not an answer."""


class PairedSpec(GateSpec):
    """Options of a rule that tolerates a drop below `margin`, shown with one-sided `confidence`."""

    margin: Margin
    confidence: Confidence = 0.95


@dataclass(frozen=True, slots=True)
class Part:
    """Items that are judged together: the slice's name (None for all), which they are, and what they may lose."""

    slice: str | None
    mask: NDArray[np.bool_]
    margin: float
    because: str


def judge_part(spec: PairedSpec, outcomes: Outcomes, part: Part) -> Finding:
    """Passed if the drop's upper bound is below the margin, failed if the drop itself is not, else inconclusive."""
    drop = statistics.drop(outcomes, part.mask, spec.confidence)
    status, reason = _decision(spec, outcomes, part, drop)
    open_question = status == "inconclusive" and drop.decidable and not _at_chance(spec, outcomes, part)
    needed = _needed(spec, outcomes, part, drop) if open_question else None
    return Finding(
        metric=spec.metric,
        rule=spec.rule,
        slice=part.slice,
        status=status,
        value=drop.value,
        bound=drop.high,
        threshold=part.margin,
        n=drop.n,
        reason=reason + (f"; about {_about(needed):,} items would decide" if needed else ""),
        because=part.because,
        needed=needed,
    )


def _decision(spec: PairedSpec, outcomes: Outcomes, part: Part, drop: Score) -> tuple[Status, str]:
    if drop.n == 0:
        return "inconclusive", "no items"
    if not drop.decidable or drop.high is None:
        return "inconclusive", f"{drop.n} items allow no bound on the drop"
    if _at_chance(spec, outcomes, part):
        return "inconclusive", "the reference is at chance here: nothing to lose is nothing shown"
    reason = (
        f"drop {_points(drop.value)}, at most {_points(drop.high)} with {100 * spec.confidence:.4g} % confidence; "
        f"margin {_points(part.margin)}"
    )
    if drop.high < part.margin:
        return "passed", reason
    return ("failed" if drop.value >= part.margin else "inconclusive"), reason


def _at_chance(spec: PairedSpec, outcomes: Outcomes, part: Part) -> bool:
    """Whether the reference cannot be told from guessing: then there is no accuracy that could have been lost."""
    reference = statistics.level(outcomes, outcomes.reference, part.mask, spec.confidence)
    return reference.low is None or reference.low <= outcomes.chance


def _needed(spec: PairedSpec, outcomes: Outcomes, part: Part, drop: Score) -> int | None:
    """Items that would decide, were the drop seen here the true one; a gain is not counted on."""
    discordance = statistics.scatter(outcomes, part.mask)
    formula = sample_size.items_needed
    if statistics.independent(outcomes, part.mask):
        formula = sample_size.pairs_needed
    needed = formula(part.margin, spec.confidence, discordance, max(drop.value, 0.0), _POWER)
    return None if needed is None or needed > _CAP else max(needed, drop.n + 1)


def _points(share: float) -> str:
    return f"{100 * share:.4g} pt"


def _about(count: int) -> int:
    """Two significant digits, upwards."""
    unit = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // unit) * unit
