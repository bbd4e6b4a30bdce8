"""Any folder that runs, measured against any other and judged by a policy. Nothing is settled; the ledger counts it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from compress.artifact import manifest
from compress.data.fingerprint import Fingerprints, of_images
from compress.gates import waiving
from compress.gates.decision import decide
from compress.gates.outcomes import Unmeasured
from compress.gates.policy import Policy
from compress.pipeline import evidence, ledger
from compress.pipeline.measurement import Subject, measure
from compress.pipeline.options import Options
from compress.pipeline.provenance import seen_by
from compress.pipeline.runnable import exported_here


def judge(policy: Policy, reference: Path, candidate: Path, seed: int, options: Options) -> dict[str, Any]:
    """The gate report as JSON-like data: as a run writes it, without what only the maker of an artifact knows.

    A gate on such a fact (census, export) is inconclusive.
    """
    digest = manifest.scan(candidate, candidate.name).subject
    if exported_here(candidate, options):  # a float model was shown nothing that its reference was not
        seen: Fingerprints | Unmeasured = of_images((), ())
    else:
        seen = seen_by(candidate, options.data_roots, options.progress)
    measured = measure(policy, Subject(reference, candidate, None, seen), seed, options)
    verdict = waiving.waive(decide(policy, measured.metrics, digest), options.waivers)
    return {
        "version": 1,
        "name": candidate.resolve().name,
        "digest": digest,
        "status": verdict.status,
        "exit_code": verdict.exit_code,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "policy": {"name": verdict.policy_name, "digest": verdict.policy_digest},
        "findings": verdict.to_data()["findings"],
        "waivers": waiving.record(verdict, options.waivers),
        "scores": list(evidence.scores(measured.metrics)),
        "damage": evidence.damage_data(measured.metrics),
        "bootstrap": evidence.bootstrap_data(),
        "sizes": list(evidence.sizes(reference, candidate)),
        "latency": measured.latency.data()["rows"] if measured.latency else [],
        "environment": evidence.environment(),
        "attempts": ledger.record(options.output, policy, verdict, candidate.resolve().name),
    }
