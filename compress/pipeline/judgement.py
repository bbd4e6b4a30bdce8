"""Anything that runs, measured against a reference and judged by a policy. Nothing is settled; the ledger counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from compress.artifact import manifest
from compress.gates import waiving
from compress.gates.decision import decide
from compress.gates.outcomes import Measurement, Unmeasured
from compress.gates.policy import Policy
from compress.gates.verdict import Verdict
from compress.pipeline import evidence, ledger
from compress.pipeline.candidate import Candidate
from compress.pipeline.measurement import Measured, Subject, measure
from compress.pipeline.options import Options

_MAKERS: Final = ("census", "export")
_MAKERS_ALONE: Final = Unmeasured("only the maker of an artifact knows this; a policy without it is clip_compare")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and the gate report around it as JSON-like data."""

    verdict: Verdict
    report: Mapping[str, Any]


def judge(policy: Policy, reference: Path, candidate: Candidate, seed: int, options: Options) -> Judgement:
    """The verdict on a candidate, and the report as a run writes it, without what only a maker knows.

    A gate on such a fact (census, export) is inconclusive, and so is every task where nobody knows what the candidate
    was calibrated on; such tasks are not measured at all.
    """
    digest = manifest.scan(candidate.folder, "candidate").subject
    measured = _measured(policy, Subject(reference, candidate.folder, None, candidate.seen), seed, options)
    verdict = waiving.waive(decide(policy, measured.metrics, digest), options.waivers)
    parts = {kind: told["parts"] for kind, told in candidate.towers.items() if "parts" in told}
    report = {
        "version": 1,
        "name": candidate.name,
        "digest": digest,
        "status": verdict.status,
        "exit_code": verdict.exit_code,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "policy": {"name": verdict.policy_name, "digest": verdict.policy_digest},
        "calibration": None if candidate.stated is None else {"stated_by": "the user", "data": candidate.stated},
        "towers": candidate.towers,
        "findings": verdict.to_data()["findings"],
        "waivers": waiving.record(verdict, options.waivers),
        "scores": list(evidence.scores(measured.metrics)),
        "damage": evidence.damage_data(measured.metrics),
        "bootstrap": evidence.bootstrap_data(),
        "sizes": list(evidence.sizes(reference, candidate.folder, parts)),
        "latency": measured.latency.data()["rows"] if measured.latency else [],
        "environment": evidence.environment(),
        "attempts": ledger.record(options.output, policy, verdict, candidate.name),
    }
    return Judgement(verdict, report)


def _measured(policy: Policy, subject: Subject, seed: int, options: Options) -> Measured:
    gated = {gate.metric: gate.metric.split(".")[0] for gate in policy.gates}
    facts: dict[str, Measurement] = {name: _MAKERS_ALONE for name, family in gated.items() if family in _MAKERS}
    measurable = policy
    if isinstance(subject.seen, Unmeasured):
        facts |= {name: subject.seen for name, family in gated.items() if family in policy.tasks}
        measurable = policy.model_copy(update={"tasks": {}})
    measured = measure(measurable, subject, seed, options)
    return Measured({**facts, **measured.metrics}, measured.latency)
