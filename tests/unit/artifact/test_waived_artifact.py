"""An artifact with waived findings: where it settles, what lets it through, and that nobody can waive afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import artifact_sample as sample
import pytest

from compress.artifact import keys, layout
from compress.artifact.signing import Signing, sign
from compress.artifact.staging import Store
from compress.artifact.verify import check, verify
from compress.cli.main import main
from compress.core.errors import GateFailed, IntegrityError
from compress.recipe import waivers

_WAIVERS = """\
version: 1
waivers:
  - {metric: reading.accuracy, rule: worst_slice, slice: size=6-8, reason: new scanner, expires: DAY, by: Ada}
"""
_FINDINGS = sample.with_statuses("waived", "passed", "passed")


def _settle(root: Path, day: str = "2999-01-01", status: str = "waived", signed: Signing | None = None) -> Path:
    with Store(root).stage("tiny") as staging:
        sample.write_payload(staging)
        staging.write(layout.WAIVERS, _WAIVERS.replace("DAY", day).encode())
        made = sample.report(staging.folder, staging.scan(), status, _FINDINGS)
        made["findings"][0]["waiver"] = {"status": "failed", "reason": "new scanner", "expires": day, "by": "Ada"}
        made["waivers"] = {"digest": waivers.read(staging.folder / layout.WAIVERS).digest, "unused": []}
        staging.write(layout.GATE_REPORT, json.dumps(made).encode())
        staging.write(layout.JUNIT, _JUNIT)
        if signed:
            sign(staging, signed)
        return staging.settle(status)  # type: ignore[arg-type]


_JUNIT = (
    b'<testsuite failures="1" errors="0" skipped="1"><testcase><skipped/></testcase><testcase/><testcase/>'
    b'<testcase classname="policy" name="waivers"><failure/></testcase></testsuite>'
)


def _report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / layout.GATE_REPORT).read_text())
    return found


def test_it_settles_apart_and_ends_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _settle(tmp_path)
    found = check(folder)
    assert folder == tmp_path / "waived" / f"tiny-{found.subject[:8]}"
    assert (found.status, found.waivers) == ("waived", waivers.read(folder / layout.WAIVERS).digest)
    assert not (tmp_path / "released").exists()
    assert main(["verify", str(folder)]) == 3
    told = capsys.readouterr()
    assert f"WAIVED, NOT PASSED: 1 of them, by waivers {found.waivers}" in told.out
    line = "reading.accuracy worst_slice size=6-8: failed, waived until 2999-01-01 by Ada (new scanner): is waived"
    assert line in told.out
    assert line in told.err
    assert "--allow-waived" in told.err


def test_waived_again_takes_its_place_and_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    first = _settle(tmp_path)
    aside = tmp_path / "staging" / "tiny-0123abcd.waived"
    aside.mkdir()
    second = _settle(tmp_path, "2999-02-02")
    assert first == second
    assert check(second).waived[0].waiver.expires == "2999-02-02"  # type: ignore[union-attr]
    assert not aside.exists()
    assert [each.name for each in (tmp_path / "waived").iterdir()] == [second.name]


def test_the_same_payload_without_waivers_has_the_same_subject(tmp_path: Path) -> None:
    failed = sample.with_statuses("failed", "passed", "passed")
    with Store(tmp_path).stage("tiny") as staging:
        sample.write_payload(staging)
        sample.write_evidence(staging, "failed", failed)
        blocked = staging.settle("failed")
    assert check(blocked).subject == check(_settle(tmp_path)).subject


def test_it_is_let_through_by_the_file_or_its_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _settle(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text("# reviewed\n" + _WAIVERS.replace("DAY", "2999-01-01"))
    digest = waivers.read(mine).digest
    for allowed in (str(mine), digest):
        assert main(["verify", str(folder), "--allow-waived", allowed]) == 0
        assert "WAIVED, NOT PASSED" in capsys.readouterr().out
        assert main(["verify", str(folder), "--allow-waived", allowed, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["status"], told["exit_code"], told["waivers"]) == ("waived", 0, digest)
        assert told["findings"][0]["waiver"]["expires"] == "2999-01-01"
    mine.write_text(_WAIVERS.replace("DAY", "2999-01-02"))
    assert main(["verify", str(folder), "--allow-waived", str(mine)]) == 3
    assert f"waived by {digest}, and only {waivers.read(mine).digest} is allowed" in capsys.readouterr().err
    for wrong in ("0" * 63, str(tmp_path), str(tmp_path / "absent.yaml")):
        assert main(["verify", str(folder), "--allow-waived", wrong]) == 2
    assert main(["verify", str(sample.settle(tmp_path)), "--allow-waived", digest]) == 0


def test_an_expired_waiver_lets_nothing_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _settle(tmp_path, "2020-01-01")
    digest = check(folder).waivers
    assert digest is not None
    assert main(["verify", str(folder), "--allow-waived", digest]) == 3
    assert "1 waiver has expired" in capsys.readouterr().err
    with pytest.raises(GateFailed, match="expired"):
        check(folder).require_passed(allowed=digest)
    with pytest.raises(GateFailed, match="expired"):
        verify(folder)


def test_a_failed_gate_beside_a_waived_one_still_fails(tmp_path: Path) -> None:
    folder = _settle(tmp_path)
    findings = _report(folder)["findings"]
    findings[2]["status"] = "failed"
    (folder / layout.JUNIT).write_bytes(
        b'<testsuite failures="2" errors="0" skipped="1"><testcase><skipped/></testcase>'
        b"<testcase><failure/></testcase><testcase><failure/></testcase></testsuite>"
    )
    sample.edit_report(folder, findings=findings, status="failed", exit_code=3)
    found = check(folder)
    with pytest.raises(GateFailed, match="1 findings failed"):
        found.require_passed(allowed=found.waivers)


def _waiver(**changes: Any) -> dict[str, Any]:
    return {"status": "failed", "reason": "new scanner", "expires": "2999-01-01", "by": "Ada", **changes}


@pytest.mark.parametrize(
    "waiver",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param(_waiver(expires="2999-12-31"), id="later day"),
        pytest.param(_waiver(reason="another"), id="other reason"),
        pytest.param(_waiver(by="Eve"), id="other name"),
        pytest.param(_waiver(status="passed"), id="of what passed"),
        pytest.param(_waiver(status="waived"), id="of a waiver"),
        pytest.param(_waiver(expires=29990101), id="no day"),
        pytest.param("yes", id="text"),
    ],
)
def test_a_finding_is_waived_exactly_as_the_file_says(tmp_path: Path, waiver: Any) -> None:
    folder = _settle(tmp_path)
    findings = _report(folder)["findings"]
    findings[0]["waiver"] = waiver
    sample.edit_report(folder, findings=findings)
    with pytest.raises(IntegrityError):
        check(folder)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": "passed", "exit_code": 0}, id="told as passed"),
        pytest.param({"exit_code": 0}, id="exit code"),
        pytest.param({"waivers": None}, id="waivers hidden"),
        pytest.param({"waivers": {"digest": "0" * 64}}, id="other waivers"),
        pytest.param({"waivers": "yes"}, id="waivers text"),
    ],
)
def test_a_report_that_hides_its_waivers_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = _settle(tmp_path)
    sample.edit_report(folder, **changes)
    with pytest.raises(IntegrityError):
        check(folder)


def test_another_slice_cannot_be_waived_afterwards(tmp_path: Path) -> None:
    folder = _settle(tmp_path)
    findings = _report(folder)["findings"]
    findings[1] |= {"status": "waived", "waiver": _waiver()}
    sample.edit_report(folder, findings=findings)
    with pytest.raises(IntegrityError, match="does not say"):
        check(folder)


def test_a_passed_finding_with_a_waiver_is_refused(tmp_path: Path) -> None:
    folder = _settle(tmp_path)
    findings = _report(folder)["findings"]
    findings[0]["status"] = "passed"
    sample.edit_report(folder, findings=findings, status="passed", exit_code=0)
    with pytest.raises(IntegrityError, match="or neither"):
        check(folder)


@pytest.mark.parametrize("text", [None, b"waivers: []\n", b"version: 1\n", b"\x00", b"version: 1\nwaivers: [3]\n"])
def test_the_file_has_to_be_there_and_to_be_one(tmp_path: Path, text: bytes | None) -> None:
    folder = _settle(tmp_path)
    if text is None:
        (folder / layout.WAIVERS).unlink()
    else:
        (folder / layout.WAIVERS).write_bytes(text)
    sample.forge(folder)
    with pytest.raises(IntegrityError):
        check(folder)


def test_waivers_that_nothing_needed_change_no_verdict(tmp_path: Path) -> None:
    folder = sample.settle(tmp_path)
    (folder / layout.WAIVERS).write_text(_WAIVERS.replace("DAY", "2999-01-01"))
    sample.forge(folder)
    with pytest.raises(IntegrityError, match="names no waivers"):
        check(folder)
    sample.edit_report(folder, waivers={"digest": waivers.read(folder / layout.WAIVERS).digest})
    assert verify(folder).status == "passed"


def test_a_signature_says_failed_and_covers_the_waivers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.generate(tmp_path / "key")
    folder = _settle(tmp_path, signed=Signing(keys.read_private(tmp_path / "key")))
    digest = str(check(folder).waivers)
    words = ["verify", str(folder), "--public-key", str(tmp_path / "key.pub")]
    assert main(words) == 3
    assert main([*words, "--allow-waived", digest]) == 0
    assert "verificationResult  failed  FAILED" in capsys.readouterr().out
    (folder / layout.WAIVERS).write_text("# edited\n" + (folder / layout.WAIVERS).read_text())
    sample.forge(folder)
    assert main(["verify", str(folder), "--allow-waived", digest]) == 0  # the words are the same ...
    assert main([*words, "--allow-waived", digest]) == 6  # ... but not the file that was signed
    assert "compress/waivers.yaml" in capsys.readouterr().err
