"""What is said about an artifact: an in-toto test-result v0.1 and a SLSA verification summary (VSA) v1, unsigned.

in-toto attestation framework 1.1 (github.com/in-toto/attestation), SLSA 1.1 (slsa.dev/spec/v1.1/verification_summary).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from compress.artifact import layout, manifest
from compress.artifact.keys import named_information
from compress.artifact.report import Report
from compress.core import digest

TYPE: Final = "https://in-toto.io/Statement/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY: Final = "https://slsa.dev/verification_summary/v1"
LEVELS: Final = ("SLSA_BUILD_LEVEL_UNEVALUATED", "COMPRESS_GATES_PASSED")
"""verifiedLevels of what passed: no claim about how it was built, and that every gate of the policy holds."""


def text(report: Report, kind: str, predicate: Mapping[str, Any]) -> bytes:
    """A statement about an artifact, in canonical JSON."""
    made = {"_type": TYPE, "subject": subject(report), "predicateType": kind, "predicate": predicate}
    return digest.canonical(made)


def subject(report: Report) -> list[dict[str, Any]]:
    """What a statement is about: the name of the artifact and the digest of its payload."""
    return [{"name": report.name, "digest": {"sha256": report.subject}}]


def tests(report: Report) -> dict[str, Any]:
    """The predicate test-result: the findings by name.

    What is inconclusive or waived has not passed, so it is told as failed; what is waived in `warnedTests` as well.
    """
    names = [(finding.status, _name(finding.metric, finding.rule, finding.slice)) for finding in report.findings]
    return {
        "result": _result(report),
        "configuration": [_policy(report)],
        "passedTests": [name for status, name in names if status == "passed"],
        "warnedTests": [name for status, name in names if status == "waived"],
        "failedTests": [name for status, name in names if status != "passed"],
    }


def _name(metric: str, rule: str, slice_: str | None) -> str:
    return f"{metric} {rule}" if slice_ is None else f"{metric} {rule} [{slice_}]"


def summary(report: Report, rests_on: list[dict[str, Any]], resource: str | None, key_id: str) -> dict[str, Any]:
    """The predicate of the VSA, but for the time and the version of the tool; `rests_on` is what `inputs` gives."""
    return {
        "verifier": {"id": named_information(key_id)},
        "resourceUri": resource or layout.resource(report.name),
        "policy": _policy(report),
        "inputAttestations": rests_on,
        "verificationResult": _result(report),
        "verifiedLevels": list(LEVELS) if report.status == "passed" else ["FAILED"],
        "slsaVersion": "1.1",
    }


def _result(report: Report) -> str:
    return "PASSED" if report.status == "passed" else "FAILED"


def _policy(report: Report) -> dict[str, Any]:
    if report.policy is None:
        return {"name": "none", "uri": "data:,none"}
    sha256 = report.policy.digest
    return {"name": report.policy.name, "uri": named_information(sha256), "digest": {"sha256": sha256}}


def inputs(files: manifest.Manifest, line: bytes) -> list[dict[str, Any]]:
    """All that the verdict rests on: the line of the test-result envelope, and every file of evidence."""
    evidence = [entry for entry in files.entries if entry.path in layout.EVIDENCE - {layout.ATTESTATIONS}]
    named = [(TEST_RESULT, digest.of_bytes(line)), *((entry.path, entry.sha256) for entry in evidence)]
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]
