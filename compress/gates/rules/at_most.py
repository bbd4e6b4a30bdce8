"""A number must not exceed a limit."""

from __future__ import annotations

from typing import Annotated

from compress.gates.gate import Stricter
from compress.gates.outcomes import Measurement
from compress.gates.rules._limit import LimitSpec, held
from compress.gates.verdict import Finding


class Spec(LimitSpec):
    """Options of `at_most`."""

    value: Annotated[float, Stricter.LOWER]


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """One finding on the unrounded number."""
    return (held(spec, measurement, at_least=False),)
