"""Policies and outcomes that the tests of the gates share."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.gates.outcomes import Outcomes
from compress.gates.policy import Policy


def policy(*gates: dict[str, Any], tasks: dict[str, Any] | None = None) -> Policy:
    """A policy with these gates over a task `reading`."""
    declared = {"reading": {"split": "release"}} if tasks is None else tasks
    stated = [{"because": "it must hold", **gate} for gate in gates]
    return Policy.model_validate({"version": 1, "name": "sample", "tasks": declared, "gates": stated})


def gate(rule: str = "non_inferior", metric: str = "reading.accuracy", **options: Any) -> dict[str, Any]:
    """One gate; a margin of 2 points where the rule takes one and none is given."""
    if rule in ("non_inferior", "worst_slice"):
        options = {"margin": 0.02, **options}
    return {"metric": metric, "rule": rule, **options}


def outcomes(n: int, lost: int = 0, gained: int = 0, wrong: int = 0, **other: Any) -> Outcomes:
    """`lost` items right in the reference alone, `gained` in the candidate alone, `wrong` in both; the rest right."""
    reference, candidate = np.ones(n), np.ones(n)
    candidate[:lost] = 0.0
    reference[lost : lost + gained] = 0.0
    reference[lost + gained : lost + gained + wrong] = 0.0
    candidate[lost + gained : lost + gained + wrong] = 0.0
    return Outcomes(tuple(map(str, range(n))), reference, candidate, **other)


def continuous(candidate: Any, reference: Any = 1.0, **other: Any) -> Outcomes:
    """Outcomes that are numbers, such as cosines with a reference of 1."""
    values = np.asarray(candidate, dtype=np.float64)
    base = np.broadcast_to(np.asarray(reference, dtype=np.float64), values.shape).copy()
    return Outcomes(tuple(map(str, range(len(values)))), base, values, binary=False, **other)
