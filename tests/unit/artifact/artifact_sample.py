"""A small artifact that passes, built as the pipeline builds one; tests then damage it."""

import json
from pathlib import Path

from compress.artifact import layout, manifest
from compress.artifact.signing import Signing, sign
from compress.artifact.staging import Staging, Store
from compress.recipe import document

POLICY = """\
version: 1
name: clip_release
gates:
  - {metric: reading.accuracy, rule: worst_slice, margin: 0.02, because: read or not}
  - {metric: size.ratio, rule: at_most, value: 0.25, because: fits}
"""

FINDINGS = (
    ("reading.accuracy", "worst_slice", "size=6-8", "passed"),
    ("reading.accuracy", "worst_slice", "size=9-12", "passed"),
    ("size.ratio", "at_most", None, "passed"),
)


def with_statuses(*statuses: str) -> tuple:
    return tuple((*finding[:3], status) for finding, status in zip(FINDINGS, statuses, strict=True))


def write_payload(staging: Staging, weights: bytes = b"weights" * 100, policy: str | None = POLICY) -> None:
    staging.write("config.json", b"{}\n")
    staging.write("onnx/vision_model_q4.onnx", weights)
    staging.write("onnx/text_model_q4.onnx", weights[::-1])
    staging.write("README.md", b"# tiny\n")
    if policy:
        staging.write(layout.POLICY, policy.encode())


def report(folder: Path, files: manifest.Manifest, status: str, findings: tuple, **changes: object) -> dict:
    policy = folder / layout.POLICY
    digest = document.read(policy).digest if policy.exists() else ""
    return {
        "version": 1,
        "name": files.name,
        "digest": files.subject,
        "status": status,
        "exit_code": {"passed": 0, "failed": 3, "inconclusive": 4, "waived": 3, "ungated": 4}[status],
        "policy": {"name": "clip_release", "digest": digest} if digest else None,
        "findings": [
            {"metric": metric, "rule": rule, "slice": slice_, "status": each, "reason": f"is {each}", "value": 0.5}
            for metric, rule, slice_, each in findings
        ],
        **changes,
    }


def junit(findings: tuple) -> bytes:
    statuses = [finding[3] for finding in findings]
    tags = {"passed": "", "failed": "<failure/>", "inconclusive": "<error/>"}
    cases = "".join(f'<testcase name="{i}">{tags[status]}</testcase>' for i, status in enumerate(statuses))
    failures, errors = statuses.count("failed"), statuses.count("inconclusive")
    return f'<testsuites><testsuite failures="{failures}" errors="{errors}">{cases}</testsuite></testsuites>'.encode()


def write_evidence(staging: Staging, status: str = "passed", findings: tuple = FINDINGS, **changes: object) -> None:
    made = report(staging.folder, staging.scan(), status, findings, **changes)
    staging.write(layout.GATE_REPORT, json.dumps(made).encode())
    if made["policy"]:
        staging.write(layout.JUNIT, junit(findings))


def settle(
    root: Path,
    status: str = "passed",
    findings: tuple = FINDINGS,
    weights: bytes = b"w" * 99,
    replace: bool = False,
    signed: Signing | None = None,
) -> Path:
    with Store(root).stage("tiny") as staging:
        write_payload(staging, weights, None if status == "ungated" else POLICY)
        write_evidence(staging, status, findings)
        if signed:
            sign(staging, signed)
        return staging.settle(status, replace)


def forge(folder: Path) -> None:
    """What an attacker without a key can do: make the manifest fit again."""
    (folder / layout.MANIFEST).write_bytes(manifest.scan(folder, manifest.read(folder).name).to_json())


def edit_report(folder: Path, **changes: object) -> None:
    """Change the gate report and make the manifest fit again."""
    path = folder / layout.GATE_REPORT
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    forge(folder)
