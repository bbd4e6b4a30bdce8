"""Holding one number against a limit, shared by `at_least` and `at_most`."""

from __future__ import annotations

import numpy as np

from compress.core.score import Score
from compress.gates import statistics
from compress.gates.gate import GateSpec, undecided, unfit
from compress.gates.outcomes import Measurement, Outcomes, Unmeasured, paired
from compress.gates.verdict import Finding


class LimitSpec(GateSpec):
    """Options of a rule that holds a number against `value`, unrounded; a number equal to it passes."""

    value: float


def score_of(measurement: Measurement) -> Score | Unmeasured:
    """The measured score, or the candidate's mean over all items; why there is none otherwise."""
    if isinstance(measurement, Outcomes):
        outcomes = paired(measurement)
        if isinstance(outcomes, Unmeasured):
            return outcomes
        everything = np.ones(len(outcomes.items), dtype=np.bool_)
        measurement = statistics.level(outcomes, outcomes.candidate, everything, 0.95)
    if not isinstance(measurement, Score):
        return Unmeasured(unfit(measurement, Score))
    if not measurement.decidable:
        return Unmeasured(f"{measurement.n} items gave {measurement.value} without a usable interval")
    return measurement


def held(spec: LimitSpec, measurement: Measurement, at_least: bool) -> Finding:
    """Whether the number keeps the limit: from above if `at_least`, else from below."""
    score = score_of(measurement)
    if isinstance(score, Unmeasured):
        return undecided(spec, score.reason)
    value = float(score.value)
    kept = value >= spec.value if at_least else value <= spec.value
    return Finding(
        metric=spec.metric,
        rule=spec.rule,
        status="passed" if kept else "failed",
        value=value,
        bound=score.low if at_least else score.high,
        threshold=spec.value,
        n=score.n,
        reason=f"{value!r} {'at least' if at_least else 'at most'} {spec.value!r}" + ("" if kept else ": no"),
        because=spec.because,
    )
