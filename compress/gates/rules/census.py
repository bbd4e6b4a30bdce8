"""What a file contains must be what was planned, entry by entry."""

from __future__ import annotations

from compress.gates.gate import GateSpec, undecided, unfit
from compress.gates.outcomes import Census, Measurement
from compress.gates.verdict import Finding


class Spec(GateSpec):
    """Options of `census`: none."""


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """One finding that lists every difference; nothing planned or nothing found decides nothing."""
    if not isinstance(measurement, Census):
        return (undecided(spec, unfit(measurement, Census)),)
    planned, found = measurement.planned, measurement.found
    if not planned or not found:
        return (undecided(spec, "nothing was planned" if not planned else "nothing was found in the file"),)
    names = sorted({*planned, *found})
    differences = [
        f"{name}: planned {planned.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in names
        if (name in planned, planned.get(name)) != (name in found, found.get(name))
    ]
    return (
        Finding(
            metric=spec.metric,
            rule=spec.rule,
            status="failed" if differences else "passed",
            value=float(len(differences)),
            threshold=0.0,
            n=len(names),
            reason="; ".join(differences) or f"all {len(names)} entries as planned",
            because=spec.because,
        ),
    )
