"""Whether an artifact may be used: its bytes, the gate report made for exactly these bytes, the policy, the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from compress.artifact import junit, layout, manifest, strict_json, waived
from compress.artifact.report import Finding, Policy, Report, plain
from compress.core.errors import CompressError, IntegrityError
from compress.recipe import document
from compress.recipe.waivers import Waivers

_VERSION = 1
_FINDING_STATUSES = ("passed", "failed", "inconclusive", "waived")
_MERGED = ("extends", "without")  # of a policy as it is written; an artifact holds it merged
_Gates = Counter[tuple[str, str]]  # how often a policy declares each (metric, rule)


def verify(folder: Path, policy_digest: str | None = None) -> Report:
    """Check an artifact and require that it passed. Raises IntegrityError, GateFailed or Inconclusive."""
    report = check(folder, policy_digest)
    report.require_passed(str(folder))
    return report


def check(folder: Path, policy_digest: str | None = None) -> Report:
    """Check that an artifact is whole and its verdict is its own, whichever that is. Raises IntegrityError.

    `policy_digest` pins the policy: another one, or none, is an IntegrityError.
    """
    files = manifest.read(folder)
    try:
        found = manifest.differences(files, folder)
    except OSError as error:
        raise IntegrityError(error.strerror or str(error), str(error.filename or folder)) from error
    if found:
        raise IntegrityError("\n  ".join([f"not what {layout.MANIFEST} says", *found.lines]), str(folder))
    report = judge(folder, files)
    if policy_digest is not None and policy_digest != (report.policy and report.policy.digest):
        gated = f"policy {report.policy.name} {report.policy.digest}" if report.policy else "no policy"
        raise IntegrityError(f"gated with {gated}, not with the required {policy_digest}", str(folder))
    return report


def judge(folder: Path, files: manifest.Manifest) -> Report:
    """Read the gate report of a folder that holds exactly `files`, and derive its verdict again.

    Raises IntegrityError unless digest, policy, findings, status, exit code and JUnit file all say the same.
    """
    where = str(folder / layout.GATE_REPORT)
    content = _member(folder, files, layout.GATE_REPORT)
    kinds = {"version": int, "name": str, "digest": str, "status": str, "exit_code": int, "findings": list}
    data = strict_json.fields(strict_json.parse(content, where), kinds, where, more=True)
    given = waived.recorded(folder, layout.WAIVERS in files.paths, data.get("waivers"))
    findings = tuple(_finding(each, given, f"{where} findings[{i}]") for i, each in enumerate(data["findings"]))
    policy, gates = _policy(folder, files, data.get("policy"))
    status = _status(gates, findings) if policy else "ungated"

    stated = (data["version"], data["name"], data["digest"], data["status"], data["exit_code"])
    derived = (_VERSION, files.name, files.subject, status, layout.EXIT_CODES[status])
    for key, says, is_ in zip(("version", "name", "digest", "status", "exit_code"), stated, derived, strict=True):
        if says != is_:
            raise IntegrityError(f"{key} is {says!r}, but it has to be {is_!r}", where)
    if policy or layout.JUNIT in files.paths:
        _compare_junit(folder, files, findings)
    size = sum(entry.size for entry in files.entries)
    digest = None if given is None else given.digest
    return Report(files.name, files.subject, status, policy, findings, len(files.entries), size, digest)


def _member(folder: Path, files: manifest.Manifest, path: str) -> bytes:
    if path not in files.paths:
        raise IntegrityError("missing", str(folder / path))
    return strict_json.read_bytes(folder / path)


def _finding(data: Any, given: Waivers | None, where: str) -> Finding:
    kinds = {"metric": str, "rule": str, "status": str, "reason": str}
    strict_json.fields(data, kinds, where, more=True)
    if data["status"] not in _FINDING_STATUSES:
        raise IntegrityError(f"status {data['status']!r} is none of {', '.join(_FINDING_STATUSES)}", where)
    if not isinstance(data.get("slice"), str | None):
        raise IntegrityError("'slice' is neither text nor null", where)
    slice_ = None if data.get("slice") is None else plain(data["slice"])
    waiver = waived.waiver(data, given, where)
    return Finding(plain(data["metric"]), plain(data["rule"]), slice_, data["status"], plain(data["reason"]), waiver)


def _policy(folder: Path, files: manifest.Manifest, stated: Any) -> tuple[Policy | None, _Gates]:
    """The policy that the report states and its gates, read from the policy file of the artifact."""
    where = str(folder / layout.GATE_REPORT)
    if stated is None:
        if layout.POLICY in files.paths:
            raise IntegrityError(f"names no policy, but there is {layout.POLICY}", where)
        return None, Counter()
    strict_json.fields(stated, {"name": str, "digest": str}, f"{where} policy", more=True)
    _member(folder, files, layout.POLICY)
    try:
        declared = document.read(folder / layout.POLICY)
    except CompressError as error:
        raise IntegrityError(f"malformed policy: {error}", str(folder / layout.POLICY)) from error
    if declared.digest != stated["digest"]:
        raise IntegrityError(f"policy.digest is {stated['digest']!r}, but {layout.POLICY} has {declared.digest}", where)
    if merged := [key for key in _MERGED if key in declared.data]:
        what = f"says {' and '.join(merged)}: an artifact's policy has to say everything itself"
        raise IntegrityError(what, str(folder / layout.POLICY))
    gates = _gates(declared.data)
    if not gates:
        raise IntegrityError("declares no gates", str(folder / layout.POLICY))
    if declared.data.get("name") != stated["name"]:
        raise IntegrityError(f"policy.name is {stated['name']!r}, but {layout.POLICY} has another", where)
    return Policy(stated["name"], declared.digest), gates


def _gates(policy: Mapping[str, Any]) -> _Gates:
    gates = policy.get("gates")
    if not isinstance(gates, list) or not all(isinstance(gate, Mapping) for gate in gates):
        return Counter()
    return Counter((str(gate.get("metric")), str(gate.get("rule"))) for gate in gates)


def _status(gates: _Gates, findings: Iterable[Finding]) -> layout.Status:
    """The verdict again, from what is declared: a gate without a finding of its own is not decided."""
    found = Counter((finding.metric, finding.rule) for finding in findings)
    statuses = {finding.status for finding in findings}
    if gates - found:
        statuses.add("inconclusive")
    for status in ("failed", "inconclusive", "waived"):
        if status in statuses:
            return cast(layout.Status, status)
    return "passed"


def _compare_junit(folder: Path, files: manifest.Manifest, findings: Iterable[Finding]) -> None:
    where = str(folder / layout.JUNIT)
    statuses = Counter(finding.status for finding in findings)
    skipped = statuses["waived"]  # and one failure for all of them together
    expected = junit.Counts(statuses["failed"] + bool(skipped), statuses["inconclusive"], skipped)
    if (found := junit.counts(_member(folder, files, layout.JUNIT), where)) != expected:
        raise IntegrityError(f"states {found}, but the gate report has {expected}", where)
