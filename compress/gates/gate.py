"""What every gate of a policy says, whatever its rule: which metric must hold, and why."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from compress.core.score import Score
from compress.gates.outcomes import Census, Measurement, Unmeasured
from compress.gates.verdict import Finding
from compress.recipe.fields import Strict, Text


class Stricter(Enum):
    """Which way an option of a rule asks for more. An option that does not say counts as weakened by every change."""

    LOWER = "lower"
    HIGHER = "higher"
    MORE = "more"  # of a list of names, where None stands for all there are


Margin = Annotated[float, Field(ge=0, lt=1), Stricter.LOWER]
"""The drop that is tolerated, as a fraction: 0.02 is two points. 1 or more would tolerate everything."""

Confidence = Annotated[float, Field(gt=0.5, lt=1), Stricter.HIGHER]
"""Of the one-sided bound a drop is judged by."""


class GateSpec(Strict):
    """One gate: the metric ("reading.accuracy"), the rule (a file in `compress.gates.rules`) and the reason for it.

    The reason is mandatory: a threshold that nobody can explain is one that nobody defends.
    A rule file holds `Spec(GateSpec)` with the rule's options and `judge(spec, measurement) -> tuple[Finding, ...]`.
    """

    metric: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")]
    rule: str
    because: Text


def undecided(spec: GateSpec, reason: str, slice_: str | None = None, n: int = 0) -> Finding:
    """An inconclusive finding, which blocks."""
    return Finding(
        metric=spec.metric,
        rule=spec.rule,
        slice=slice_,
        status="inconclusive",
        n=n,
        reason=reason,
        because=spec.because,
    )


def unfit(measurement: Measurement, wanted: type[Score] | type[Census]) -> str:
    """Why a measurement is not of the wanted kind."""
    if isinstance(measurement, Unmeasured):
        return measurement.reason
    return f"this rule needs a {wanted.__name__}, and got {type(measurement).__name__}"
