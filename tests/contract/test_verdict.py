"""One verdict, told in one way: exit code, JSON, JUnit, place and attestation agree for every status there is."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from compress.artifact import keys, layout
from compress.artifact.signing import Signing, sign
from compress.artifact.staging import Store
from compress.cli.main import main
from compress.core.score import Score
from compress.gates.decision import decide
from compress.gates.junit import junit
from compress.gates.outcomes import Measurement, Outcomes, Unmeasured
from compress.gates.policy import load_policy
from compress.gates.verdict import Verdict
from compress.gates.waiving import record, waive
from compress.recipe import writing
from compress.recipe.waivers import Waivers

_POLICY = """\
version: 1
name: sample
tasks:
  reading: {split: release}
gates:
  - {metric: reading.accuracy, rule: non_inferior, margin: 0.02, because: it reads}
  - {metric: size.ratio, rule: at_most, value: 0.3, because: it fits}
"""
_ITEMS = tuple(map(str, range(1000)))
_READING: dict[str, Measurement] = {
    "passed": Outcomes(_ITEMS, np.ones(1000), np.ones(1000)),
    "failed": Outcomes(_ITEMS, np.ones(1000), np.zeros(1000)),
    "inconclusive": Unmeasured("it was skipped"),
}
_SIZE: dict[str, Measurement] = {
    "passed": Score.exact(0.2),
    "failed": Score.exact(0.4),
    "inconclusive": Unmeasured("nobody asked"),
}
_READING["waived"], _SIZE["waived"] = _READING["failed"], _SIZE["inconclusive"]
_WAIVED = {
    "metric": "reading.accuracy", "rule": "non_inferior", "reason": "the scanner is replaced in May",
    "expires": "2999-05-31", "by": "Ada",
}  # fmt: skip
_CODES = {"passed": 0, "failed": 3, "inconclusive": 4, "waived": 3, "ungated": 4}
_PLACES = {
    "passed": "released",
    "failed": "blocked",
    "inconclusive": "blocked",
    "waived": "waived",
    "ungated": "ungated",
}


def _worst(*statuses: str) -> str:
    return next(each for each in ("failed", "inconclusive", "waived", "passed") if each in statuses)


def _waivers(given: tuple[str, ...]) -> Waivers | None:
    """A waiver for each finding that is to be waived."""
    gates = (_WAIVED, {**_WAIVED, "metric": "size.ratio", "rule": "at_most"})
    wanted = tuple(gate for gate, status in zip(gates, given, strict=True) if status == "waived")
    return Waivers.model_validate({"version": 1, "waivers": wanted}) if wanted else None


def _settle(root: Path, verdict: Verdict | None, status: layout.Status, waivers: Waivers | None) -> Path:
    """An artifact with the evidence that a run writes, signed."""
    with Store(root).stage("sample") as staging:
        staging.write("onnx/vision_model.onnx", b"weights")
        if verdict is not None:
            staging.write(layout.POLICY, _POLICY.encode())
            staging.write(layout.JUNIT, junit(verdict).encode())
        report = {
            "version": 1,
            "name": "sample",
            "digest": staging.scan().subject,
            "status": status,
            "exit_code": layout.EXIT_CODES[status],
            "policy": {"name": verdict.policy_name, "digest": verdict.policy_digest} if verdict else None,
            "findings": verdict.to_data()["findings"] if verdict else [],
            "waivers": record(verdict, waivers) if verdict else None,
        }
        if waivers is not None:
            staging.write(layout.WAIVERS, writing.dump(waivers.to_data()).encode())
        staging.write(layout.GATE_REPORT, json.dumps(report).encode())
        sign(staging, Signing(keys.read_private(root / "key")))
        return staging.settle(status)


def _attested(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / layout.ATTESTATIONS).read_text().splitlines()
    return [json.loads(base64.b64decode(json.loads(line)["payload"]))["predicate"] for line in lines]


def _cases() -> list[tuple[str, ...]]:
    return [*itertools.product(("passed", "failed", "inconclusive", "waived"), repeat=2), ()]


def test_every_status_is_among_the_cases() -> None:
    assert {_worst(*each) if each else "ungated" for each in _cases()} == set(layout.EXIT_CODES) == set(layout.PLACES)


@pytest.mark.parametrize("given", _cases(), ids=lambda given: "-".join(given) or "ungated")
def test_all_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...]) -> None:
    (tmp_path / "policy.yaml").write_text(_POLICY)
    keys.generate(tmp_path / "key")
    verdict, status, waivers = None, "ungated", _waivers(given) if given else None
    if given:
        found = {"reading.accuracy": _READING[given[0]], "size.ratio": _SIZE[given[1]]}
        subject = _subject(tmp_path)
        verdict = decide(load_policy(tmp_path / "policy.yaml"), found, subject)
        if waivers is not None:
            verdict = waive(verdict, waivers)
        status = verdict.status
        assert verdict.exit_code == _CODES[status]
    assert status == (_worst(*given) if given else "ungated")
    folder = _settle(tmp_path, verdict, status, waivers)  # type: ignore[arg-type]
    assert folder.parent.name == _PLACES[status]

    passed, failed, open_, waived = (given.count(each) for each in ("passed", "failed", "inconclusive", "waived"))
    report = json.loads((folder / layout.GATE_REPORT).read_text())
    assert (report["status"], report["exit_code"]) == (status, _CODES[status])

    assert main(["verify", str(folder), "--public-key", str(tmp_path / "key.pub"), "--json"]) == _CODES[status]
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["exit_code"]) == (status, _CODES[status])
    assert [each["status"] for each in told["findings"]] == list(given)
    assert told["signature"]["status"] == "ok"

    tests, summary = _attested(folder)
    assert tests["result"] == summary["verificationResult"] == ("PASSED" if _CODES[status] == 0 else "FAILED")
    assert ("COMPRESS_GATES_PASSED" in summary["verifiedLevels"]) == (status == "passed")
    assert ("FAILED" in summary["verifiedLevels"]) == (status != "passed")
    assert (len(tests["passedTests"]), len(tests["failedTests"])) == (passed, failed + open_ + waived)
    assert len(tests["warnedTests"]) == waived

    assert (folder / layout.JUNIT).is_file() == bool(given)
    if given:
        suite = ElementTree.parse(folder / layout.JUNIT).getroot()
        assert (suite.get("failures"), suite.get("errors")) == (str(failed + bool(waived)), str(open_))
        assert suite.get("skipped") == str(waived)
        assert suite.find("testsuite/properties/property[@name='status']").get("value") == status  # type: ignore[union-attr]


@pytest.mark.parametrize("given", _cases(), ids=lambda given: "-".join(given) or "ungated")
def test_allowed_waivers_let_only_what_they_waive_through(tmp_path: Path, given: tuple[str, ...]) -> None:
    (tmp_path / "policy.yaml").write_text(_POLICY)
    keys.generate(tmp_path / "key")
    waivers, verdict = _waivers(given) if given else None, None
    if given:
        found = {"reading.accuracy": _READING[given[0]], "size.ratio": _SIZE[given[1]]}
        verdict = waive(decide(load_policy(tmp_path / "policy.yaml"), found, _subject(tmp_path)), waivers)
    status = verdict.status if verdict else "ungated"
    folder = _settle(tmp_path, verdict, status, waivers)
    allowed = waivers.digest if waivers else "0" * 64
    expected = 0 if status == "waived" else _CODES[status]
    assert main(["verify", str(folder), "--allow-waived", allowed]) == expected
    signed = ["--public-key", str(tmp_path / "key.pub"), "--json"]
    assert main(["verify", str(folder), "--allow-waived", allowed, *signed]) == expected
    if status == "waived":
        assert main(["verify", str(folder), "--allow-waived", "0" * 64]) == 3
        assert _attested(folder)[1]["verificationResult"] == "FAILED"


def _subject(root: Path) -> str:
    """The digest of the payload that `_settle` writes."""
    with Store(root).stage("sample") as staging:
        staging.write("onnx/vision_model.onnx", b"weights")
        staging.write(layout.POLICY, _POLICY.encode())
        return staging.scan().subject
