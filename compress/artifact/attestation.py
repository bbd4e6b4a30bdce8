"""The signed verdict: an in-toto test-result v0.1 and a SLSA verification summary (VSA) v1 about one artifact.

Both are derived from the gate report as `verify` derives it, when they are made and again when they are checked.
in-toto attestation framework 1.1, predicate test-result v0.1; SLSA specification 1.1, "Verification Summary".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

from securesystemslib.signer import CryptoSigner, SSlibKey

from compress import __version__
from compress.artifact import envelope, layout, manifest, strict_json
from compress.artifact.keys import named_information
from compress.artifact.verify import Report
from compress.core import digest
from compress.core.errors import IntegrityError

STATEMENT: Final = "https://in-toto.io/Statement/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY: Final = "https://slsa.dev/verification_summary/v1"
LEVELS: Final = ("SLSA_BUILD_LEVEL_UNEVALUATED", "COMPRESS_GATES_PASSED")
"""verifiedLevels of what passed: no claim about how it was built, and that every gate of the policy holds."""

_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, under its name in the specification.

    `mismatch` is tampering; `failed` is a true signature under a verdict that releases nothing.
    """

    name: str
    status: Literal["ok", "failed", "mismatch"]
    detail: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What the attestations of an artifact came to under one public key; `time` is when its signer says it was."""

    key_id: str
    time: str
    checks: tuple[Check, ...]

    @property
    def mismatched(self) -> tuple[Check, ...]:
        """What is not as it was signed."""
        return tuple(each for each in self.checks if each.status == "mismatch")

    def require(self, where: str) -> None:
        """Raise IntegrityError unless the attestations are this key's and belong to this artifact and verdict."""
        lines = [f"  {each.name}: {each.detail}" for each in self.mismatched]
        if lines:
            raise IntegrityError("\n".join([f"{len(lines)} checks of the signature do not hold", *lines]), where)


def attest(report: Report, files: manifest.Manifest, signer: CryptoSigner, resource: str | None = None) -> bytes:
    """The text of compress/attestations.intoto.jsonl for an artifact that holds `files` and came to `report`.

    `resource` is the URI under which it will be found; by default one made from its name.
    """
    tests = envelope.seal(_statement(report, TEST_RESULT, _tests(report)), signer)
    summary = _summary(report, _inputs(files, tests), resource, signer.public_key.keyid)
    summary["verifier"]["version"] = {"compress": __version__}
    summary["timeVerified"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return tests + b"\n" + envelope.seal(_statement(report, SUMMARY, summary), signer) + b"\n"


def check(folder: Path, report: Report, key: SSlibKey, resource: str | None = None) -> Signed:
    """Hold the attestations of an artifact against the report that `verify.check` gave for it.

    The seven steps of the VSA specification, and that policy, evidence and tests are the ones that were signed.
    Nothing of an attestation is looked at before its signature holds. Raises IntegrityError where there are none, or
    they are malformed; everything else is in the result.
    """
    files = manifest.read(folder)
    where = str(folder / layout.ATTESTATIONS)
    if layout.ATTESTATIONS not in files.paths:
        raise IntegrityError("there is none: nobody has signed this artifact", where, "`compress sign` does")
    both = _envelopes(strict_json.read_bytes(folder / layout.ATTESTATIONS), where)
    signature = _signature(both, key)
    if signature.status != "ok":
        return Signed(key.keyid, "", (signature,))
    tests, summary = (_read(each, where) for each in both)
    inputs = _inputs(files, both[0].line)
    checks = _steps((tests, summary), report, _summary(report, inputs, resource, key.keyid))
    return Signed(key.keyid, str(summary["predicate"].get("timeVerified", "")), (signature, *checks))


def _steps(both: tuple[dict[str, Any], ...], report: Report, expected: Mapping[str, Any]) -> Iterator[Check]:
    """Steps 2 to 7 of the specification, and three of our own."""
    tests, summary = both
    said, told = summary["predicate"], _tests(report)
    yield _compare("subject", [each["subject"] for each in both], [_subject(report)] * 2, report.subject)
    yield _compare("predicateType", [each["predicateType"] for each in both], [TEST_RESULT, SUMMARY], SUMMARY)
    yield _compare("verifier.id", _id(said.get("verifier")), expected["verifier"]["id"])
    yield _compare("resourceUri", said.get("resourceUri"), expected["resourceUri"])
    yield _verdict(_compare("verificationResult", said.get("verificationResult"), _result(report)), report)
    levels = expected["verifiedLevels"]
    yield _verdict(_compare("verifiedLevels", said.get("verifiedLevels"), levels, ", ".join(levels)), report)
    yield _compare("policy", said.get("policy"), expected["policy"], expected["policy"]["uri"])
    yield _compare_inputs(said.get("inputAttestations"), expected["inputAttestations"])
    yield _compare("tests", {key: tests["predicate"].get(key) for key in told}, told, _counted(report))


def claim(folder: Path) -> tuple[str, str, bool] | None:
    """Key id and resource that the attestations in a folder claim, unverified, and whether there is a bundle too.

    None where there are no attestations.
    """
    path = folder / layout.ATTESTATIONS
    if not path.is_file():
        return None
    summary = _envelopes(strict_json.read_bytes(path), str(path))[1]
    resource = _read(summary, str(path))["predicate"].get("resourceUri")
    return summary.key_id, str(resource), (folder / layout.BUNDLE).is_file()


def _statement(report: Report, kind: str, predicate: Mapping[str, Any]) -> bytes:
    made = {"_type": STATEMENT, "subject": _subject(report), "predicateType": kind, "predicate": predicate}
    return digest.canonical(made)


def _subject(report: Report) -> list[dict[str, Any]]:
    return [{"name": report.name, "digest": {"sha256": report.subject}}]


def _tests(report: Report) -> dict[str, Any]:
    """The predicate test-result: the findings by name. An inconclusive test has not passed, so it is told as failed."""
    names = [(finding.status, _name(finding.metric, finding.rule, finding.slice)) for finding in report.findings]
    return {
        "result": _result(report),
        "configuration": [_policy(report)],
        "passedTests": [name for status, name in names if status == "passed"],
        "warnedTests": [],
        "failedTests": [name for status, name in names if status != "passed"],
    }


def _name(metric: str, rule: str, slice_: str | None) -> str:
    return f"{metric} {rule}" if slice_ is None else f"{metric} {rule} [{slice_}]"


def _summary(report: Report, inputs: list[dict[str, Any]], resource: str | None, key_id: str) -> dict[str, Any]:
    """The predicate of the VSA, without what depends on the moment."""
    return {
        "verifier": {"id": named_information(key_id)},
        "resourceUri": resource or layout.resource(report.name),
        "policy": _policy(report),
        "inputAttestations": inputs,
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


def _inputs(files: manifest.Manifest, tests: bytes) -> list[dict[str, Any]]:
    """All that the verdict rests on: the test-result envelope, and every file of evidence."""
    evidence = [entry for entry in files.entries if entry.path in layout.EVIDENCE - {layout.ATTESTATIONS}]
    named = [(TEST_RESULT, digest.of_bytes(tests)), *((entry.path, entry.sha256) for entry in evidence)]
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]


def _envelopes(content: bytes, where: str) -> tuple[envelope.Envelope, ...]:
    both = envelope.parse(content, where)
    if len(both) != 2:
        raise IntegrityError(f"{len(both)} envelopes; there have to be a test-result and a VSA", where)
    return both


def _read(signed: envelope.Envelope, where: str) -> dict[str, Any]:
    """The statement of an envelope; unknown keys are allowed, as the in-toto parsing rules ask."""
    kinds = {"_type": str, "subject": list, "predicateType": str, "predicate": dict}
    data = strict_json.fields(strict_json.parse(signed.payload, where), kinds, where, more=True)
    if data["_type"] != STATEMENT:
        raise IntegrityError(f"_type is {data['_type']!a}, not {STATEMENT}", where)
    return data


def _signature(both: tuple[envelope.Envelope, ...], key: SSlibKey) -> Check:
    others = sorted({each.key_id for each in both} - {key.keyid})
    if others:
        return Check("signature", "mismatch", f"by key {_short(', '.join(others))}, not by {key.keyid}")
    if not all(each.verified(key) for each in both):
        return Check("signature", "mismatch", f"does not hold under key {key.keyid}")
    return Check("signature", "ok", f"{key.keytype} key {key.keyid}")


def _compare(name: str, stated: object, expected: object, shown: str = "") -> Check:
    if stated == expected:
        return Check(name, "ok", shown or _short(expected))
    return Check(name, "mismatch", f"is {_short(stated)}, and has to be {_short(expected)}")


def _verdict(compared: Check, report: Report) -> Check:
    """The same check; a true statement that the artifact did not pass is no more than that."""
    if compared.status == "ok" and report.status != "passed":
        return Check(compared.name, "failed", compared.detail)
    return compared


def _compare_inputs(stated: object, expected: list[dict[str, Any]]) -> Check:
    name = "inputAttestations"
    if stated == expected:
        return Check(name, "ok", f"the test-result and {len(expected) - 1} files of evidence")
    listed = stated if isinstance(stated, list) else []
    wrong = [each["name"] for each in expected if each not in listed] or ["the list itself"]
    return Check(name, "mismatch", f"not the evidence that was signed: {', '.join(wrong)}")


def _counted(report: Report) -> str:
    passed = sum(finding.status == "passed" for finding in report.findings)
    return f"{passed} passed, {len(report.findings) - passed} did not, as in the gate report"


def _id(verifier: object) -> object:
    return verifier.get("id") if isinstance(verifier, dict) else None


def _short(value: object) -> str:
    """A value as a terminal may show it."""
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
