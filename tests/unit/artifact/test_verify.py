import json
import subprocess
import sys

import artifact_sample as sample
import pytest

from compress.artifact import junit, layout
from compress.artifact.verify import check, verify
from compress.cli.main import main
from compress.core.errors import GateFailed, Inconclusive, IntegrityError
from compress.recipe import document

FAILED = sample.with_statuses("passed", "failed", "inconclusive")
INCONCLUSIVE = sample.with_statuses("passed", "passed", "inconclusive")


def policy_digest(folder):
    return document.read(folder / layout.POLICY).digest


def test_a_released_artifact_verifies(tmp_path):
    folder = sample.settle(tmp_path)
    report = verify(folder, policy_digest(folder))
    assert (report.name, report.status, report.files) == ("tiny", "passed", 7)
    assert [finding.slice for finding in report.findings] == ["size=6-8", "size=9-12", None]


def test_it_may_be_copied_elsewhere(tmp_path):
    verify(sample.settle(tmp_path).rename(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("status", "findings", "error", "code"),
    [
        ("failed", FAILED, GateFailed, 3),
        ("inconclusive", INCONCLUSIVE, Inconclusive, 4),
        ("ungated", (), Inconclusive, 4),
    ],
)
def test_only_passed_may_be_used(tmp_path, capsys, status, findings, error, code):
    folder = sample.settle(tmp_path, status, findings)
    with pytest.raises(error):
        verify(folder)
    assert check(folder).status == status
    assert main(["verify", str(folder), "--json"]) == code
    out = json.loads(capsys.readouterr().out)
    assert (out["status"], out["exit_code"]) == (status, code)


def test_a_failed_verdict_names_the_slice(tmp_path):
    with pytest.raises(GateFailed, match=r"reading\.accuracy worst_slice size=9-12: is failed"):
        verify(sample.settle(tmp_path, "failed", FAILED))


def findings(*statuses):
    return [
        {"metric": metric, "rule": rule, "slice": slice_, "status": status, "reason": ""}
        for (metric, rule, slice_, _), status in zip(sample.FINDINGS, statuses, strict=True)
    ]


ALL_PASSED = findings("passed", "passed", "passed")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"version": 2}, id="later version"),
        pytest.param({"version": True}, id="version bool"),
        pytest.param({"name": "other"}, id="other name"),
        pytest.param({"digest": "0" * 64}, id="made for other bytes"),
        pytest.param({"status": "failed"}, id="status only"),
        pytest.param({"status": "failed", "exit_code": 3}, id="status and exit code"),
        pytest.param({"status": "released"}, id="unknown status"),
        pytest.param({"status": "ungated", "exit_code": 4}, id="ungated with a policy"),
        pytest.param({"exit_code": 4}, id="exit code only"),
        pytest.param({"exit_code": False}, id="exit code bool"),
        pytest.param({"findings": []}, id="no findings"),
        pytest.param({"findings": ALL_PASSED[:2]}, id="a declared gate has no finding"),
        pytest.param({"findings": ALL_PASSED[2:]}, id="the other declared gate has none"),
        pytest.param({"findings": findings("passed", "failed", "passed")}, id="a finding failed"),
        pytest.param({"findings": findings("passed", "passed", "inconclusive")}, id="a finding is inconclusive"),
        pytest.param({"findings": findings("passed", "excused", "passed")}, id="unknown finding status"),
        pytest.param({"findings": findings("passed", "waived", "passed")}, id="waived by nobody"),
        pytest.param({"findings": [{**ALL_PASSED[0], "slice": 3}, *ALL_PASSED]}, id="slice number"),
        pytest.param({"findings": [{"metric": "size.ratio"}, *ALL_PASSED]}, id="incomplete finding"),
        pytest.param({"policy": None}, id="policy hidden"),
        pytest.param({"policy": None, "status": "ungated", "exit_code": 4}, id="ungated, but there is a policy"),
        pytest.param({"policy": "clip_release"}, id="policy text"),
        pytest.param({"policy": {"name": "clip_release", "digest": "0" * 64}}, id="other policy digest"),
    ],
)
def test_a_gate_report_that_contradicts_itself_is_refused(tmp_path, changes):
    folder = sample.settle(tmp_path)
    sample.edit_report(folder, **changes)
    with pytest.raises(IntegrityError):
        check(folder)


@pytest.mark.parametrize("key", ["version", "name", "digest", "status", "exit_code", "policy", "findings"])
def test_a_gate_report_says_everything(tmp_path, key):
    folder = sample.settle(tmp_path)
    data = json.loads((folder / layout.GATE_REPORT).read_text())
    (folder / layout.GATE_REPORT).write_text(json.dumps({each: data[each] for each in data if each != key}))
    sample.forge(folder)
    with pytest.raises(IntegrityError):
        check(folder)


def test_a_policy_may_not_go_by_another_name(tmp_path):
    folder = sample.settle(tmp_path)
    sample.edit_report(folder, policy={"name": "strict_release", "digest": policy_digest(folder)})
    with pytest.raises(IntegrityError, match=r"policy\.name"):
        check(folder)


def test_what_a_report_says_does_not_reach_the_terminal_as_commands(tmp_path, capsys):
    folder = sample.settle(tmp_path, "failed", FAILED)
    data = json.loads((folder / layout.GATE_REPORT).read_text())["findings"]
    sample.edit_report(folder, findings=[data[0], {**data[1], "reason": "\x1b[2Jverdict\rpassed"}, data[2]])
    assert main(["verify", str(folder)]) == 3
    err = capsys.readouterr().err
    assert "verdict passed" in err
    assert "\x1b" not in err


def test_two_gates_with_one_metric_and_rule_need_two_findings(tmp_path):
    folder = sample.settle(tmp_path)
    more = sample.POLICY + "  - {metric: size.ratio, rule: at_most, value: 0.2, because: fits}\n"
    (folder / layout.POLICY).write_text(more)
    policy = {"name": "clip_release", "digest": policy_digest(folder)}
    sample.forge(folder)
    sample.edit_report(folder, policy=policy, digest=sample.manifest.read(folder).subject)
    with pytest.raises(IntegrityError, match="'inconclusive'"):
        check(folder)


@pytest.mark.parametrize("policy", ["gates: []\n", "version: 1\n", "gates: {a: 1}\n", "gates: [a]\n"])
def test_a_policy_without_gates_passes_nothing(tmp_path, policy):
    folder = sample.settle(tmp_path)
    (folder / layout.POLICY).write_text(policy)
    sample.forge(folder)
    changes = {"policy": {"name": "clip_release", "digest": policy_digest(folder)}}
    sample.edit_report(folder, **changes, digest=sample.manifest.read(folder).subject)
    with pytest.raises(IntegrityError, match="no gates"):
        check(folder)


@pytest.mark.parametrize("line", ["extends: ../../lenient.yaml\n", "without: []\n"])
def test_a_policy_that_rests_on_another_file_is_refused(tmp_path, line):
    folder = sample.settle(tmp_path)
    (folder / layout.POLICY).write_text(sample.POLICY + line)
    policy = {"name": "clip_release", "digest": policy_digest(folder)}
    sample.forge(folder)
    sample.edit_report(folder, policy=policy, digest=sample.manifest.read(folder).subject)
    with pytest.raises(IntegrityError, match="has to say everything itself"):
        check(folder)


@pytest.mark.parametrize("path", [layout.GATE_REPORT, layout.JUNIT, layout.POLICY])
def test_what_proves_the_verdict_may_not_be_left_out(tmp_path, path):
    folder = sample.settle(tmp_path)
    (folder / path).unlink()
    sample.forge(folder)
    with pytest.raises(IntegrityError):
        check(folder)


def test_junit_must_agree(tmp_path):
    folder = sample.settle(tmp_path)
    (folder / layout.JUNIT).write_bytes(sample.junit(FAILED))
    sample.forge(folder)
    with pytest.raises(IntegrityError, match="junit"):
        check(folder)


def test_junit_counts():
    assert junit.counts(sample.junit(FAILED), "x") == junit.Counts(failures=1, errors=1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<testsuite>", id="truncated"),
        pytest.param(b'<testsuite failures="1"></testsuite>', id="total without case"),
        pytest.param(b"<testsuite><failure/></testsuite>", id="case without total"),
        pytest.param(b'<testsuite failures="x"/>', id="total no number"),
        pytest.param(b"<!DOCTYPE a><testsuite/>", id="document type"),
        pytest.param(b'<!DOCTYPE a [<!ENTITY b "c">]><testsuite/>', id="entity"),
        pytest.param('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><testsuite/>'.encode("utf-16"), id="UTF-16"),
    ],
)
def test_malformed_junit_is_refused(content):
    with pytest.raises(IntegrityError):
        junit.counts(content, "x")


def test_the_pinned_policy_must_be_the_one_it_was_gated_with(tmp_path):
    folder = sample.settle(tmp_path)
    with pytest.raises(IntegrityError, match="required"):
        check(folder, "0" * 64)
    with pytest.raises(IntegrityError, match="no policy"):
        check(sample.settle(tmp_path, "ungated", ()), policy_digest(folder))


def test_command_line_policy(tmp_path, capsys):
    folder = sample.settle(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text(sample.POLICY)
    weaker = tmp_path / "weaker.yaml"
    weaker.write_text(sample.POLICY.replace("0.02", "0.2"))
    digest = policy_digest(folder)
    assert main(["verify", str(folder)]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["verify", str(folder), "--policy", str(mine), "--policy-digest", digest]) == 0
    assert main(["verify", str(folder), "--policy", str(weaker)]) == 6
    assert main(["verify", str(folder), "--policy-digest", "0" * 64]) == 6
    assert main(["verify", str(folder), "--policy-digest", digest[:8]]) == 2
    assert main(["verify", str(folder), "--policy", str(weaker), "--policy-digest", digest]) == 2
    assert main(["verify", str(tmp_path / "absent")]) == 2


def test_command_line_json(tmp_path, capsys):
    folder = sample.settle(tmp_path)
    assert main(["verify", str(folder), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["status"], out["exit_code"], out["error"]) == ("passed", 0, None)
    (folder / "config.json").write_bytes(b"[]\n")
    assert main(["verify", str(folder), "--json"]) == 6
    out = json.loads(capsys.readouterr().out)
    assert (out["status"], out["exit_code"]) == ("error", 6)
    assert "changed: config.json" in out["error"]["what"]


def test_it_loads_no_machine_learning_library(tmp_path):
    folder = sample.settle(tmp_path)
    code = (
        "import sys; from compress.cli.main import main; code = main(['verify', sys.argv[1]]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'scipy', 'transformers', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
