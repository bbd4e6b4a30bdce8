"""The decision: a policy, what was measured and the digest of the bytes it was measured on, in; a verdict, out."""

from __future__ import annotations

from compress.core import names
from compress.gates.gate import GateSpec, undecided
from compress.gates.outcomes import Measurement, Measurements, Outcomes, Unmeasured
from compress.gates.policy import RULES, Policy
from compress.gates.verdict import Finding, Verdict


def decide(policy: Policy, measurements: Measurements, digest: str) -> Verdict:
    """Judge every gate the policy declares. Pure; what is missing, broken or too little blocks."""
    findings = tuple(finding for gate in policy.gates for finding in _judge(policy, gate, measurements))
    return Verdict(digest, policy.name, policy.digest, findings)


def _judge(policy: Policy, gate: GateSpec, measurements: Measurements) -> tuple[Finding, ...]:
    try:
        measurement = measurements.get(gate.metric, Unmeasured("not measured"))
        if shortfall := _shortfall(policy, gate, measurement):
            return (undecided(gate, shortfall),)
        findings: tuple[Finding, ...] = names.load(RULES, gate.rule).judge(gate, measurement)
    except Exception as error:  # whatever breaks here must block, not pass and not hide the other gates
        return (undecided(gate, f"judging ended with {type(error).__name__}: {error}"),)
    return findings or (undecided(gate, "the rule came to no finding"),)


def _shortfall(policy: Policy, gate: GateSpec, measurement: Measurement) -> str:
    """Items that the policy declares and that did not come back: leaving out the hard ones must not help."""
    task = policy.tasks.get(gate.metric.split(".")[0])
    if task is None or not isinstance(measurement, Outcomes):
        return ""
    declared, count = max(task.items or 0, task.items_per_slice or 0), len(measurement.items)
    return f"{count} items were measured; the policy declares {declared}" if count < declared else ""
