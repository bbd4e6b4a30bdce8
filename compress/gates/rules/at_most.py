"""A number must not exceed a limit."""

from __future__ import annotations

from compress.gates.outcomes import Measurement
from compress.gates.rules._limit import LimitSpec, held
from compress.gates.verdict import Finding


class Spec(LimitSpec):
    """Options of `at_most`."""


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """One finding on the unrounded number."""
    return (held(spec, measurement, at_least=False),)
