"""Embeddings must stay where the reference's are: the lowest cosine and the first percentile, not the mean."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from compress.gates.gate import GateSpec, Stricter, undecided
from compress.gates.outcomes import Measurement, Unmeasured, paired
from compress.gates.verdict import Finding

Cosine = Annotated[float, Field(ge=-1, le=1), Stricter.HIGHER]


class Spec(GateSpec):
    """Options of `parity`: what the lowest cosine, and the one that 99 % of the items reach, must be."""

    minimum: Cosine
    p1: Cosine


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """Two findings on outcomes whose candidate values are cosines with the reference."""
    outcomes = paired(measurement)
    if isinstance(outcomes, Unmeasured):
        return (undecided(spec, outcomes.reason),)
    if outcomes.binary or len(outcomes.items) < 2:
        return (undecided(spec, "this rule needs the cosines of two items at least", n=len(outcomes.items)),)
    cosines = outcomes.candidate
    lowest, first = float(np.min(cosines)), float(np.quantile(cosines, 0.01, method="lower"))
    return (
        _finding(spec, "minimum", (lowest, spec.minimum), len(cosines)),
        _finding(spec, "p1", (first, spec.p1), len(cosines)),
    )


def _finding(spec: Spec, which: str, held: tuple[float, float], n: int) -> Finding:
    value, threshold = held
    return Finding(
        metric=spec.metric,
        rule=spec.rule,
        slice=which,
        status="passed" if value >= threshold else "failed",
        value=value,
        bound=value,
        threshold=threshold,
        n=n,
        reason=f"cosine {which} {value!r}, wanted {threshold!r}",
        because=spec.because,
    )
