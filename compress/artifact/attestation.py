"""The signed verdict: made of a report that `verify` derived, and held against one that it derives again.

The steps are those of the SLSA specification 1.1, "Verification Summary Attestation", "How to verify".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

from securesystemslib.signer import CryptoSigner, SSlibKey

from compress import __version__
from compress.artifact import envelope, layout, manifest, statement, strict_json
from compress.artifact.report import Report
from compress.core.errors import IntegrityError

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
    tests = envelope.seal(statement.text(report, statement.TEST_RESULT, statement.tests(report)), signer)
    summary = statement.summary(report, statement.inputs(files, tests), resource, signer.public_key.keyid)
    summary["verifier"]["version"] = {"compress": __version__}
    summary["timeVerified"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return tests + b"\n" + envelope.seal(statement.text(report, statement.SUMMARY, summary), signer) + b"\n"


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
    expected = statement.summary(report, statement.inputs(files, both[0].line), resource, key.keyid)
    checks = _steps((tests, summary), report, expected)
    return Signed(key.keyid, _short(summary["predicate"].get("timeVerified", "")), (signature, *checks))


def _steps(both: tuple[dict[str, Any], ...], report: Report, expected: dict[str, Any]) -> Iterator[Check]:
    """Steps 2 to 7 of the specification, and three of our own."""
    tests, summary = both
    said, told, levels = summary["predicate"], statement.tests(report), expected["verifiedLevels"]
    kinds = [statement.TEST_RESULT, statement.SUMMARY]
    yield _compare("subject", [each["subject"] for each in both], [statement.subject(report)] * 2, report.subject)
    yield _compare("predicateType", [each["predicateType"] for each in both], kinds, statement.SUMMARY)
    yield _compare("verifier.id", _id(said.get("verifier")), expected["verifier"]["id"])
    yield _compare("resourceUri", said.get("resourceUri"), expected["resourceUri"])
    result = _compare("verificationResult", said.get("verificationResult"), expected["verificationResult"])
    yield _verdict(result, report)
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


def _envelopes(content: bytes, where: str) -> tuple[envelope.Envelope, ...]:
    both = envelope.parse(content, where)
    if len(both) != 2:
        raise IntegrityError(f"{len(both)} envelopes; there have to be a test-result and a VSA", where)
    return both


def _read(signed: envelope.Envelope, where: str) -> dict[str, Any]:
    """The statement of an envelope; unknown keys are allowed, as the in-toto parsing rules ask."""
    kinds = {"_type": str, "subject": list, "predicateType": str, "predicate": dict}
    data = strict_json.fields(strict_json.parse(signed.payload, where), kinds, where, more=True)
    if data["_type"] != statement.TYPE:
        raise IntegrityError(f"_type is {data['_type']!a}, not {statement.TYPE}", where)
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
