"""Policies and waivers through whole runs of a tiny random CLIP: what is released, what is waived, what is kept.

The gates are on sizes only, which takes no child process: how the others are measured is not what is tested here.
"""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_clip

from compress.artifact import layout
from compress.cli.main import main
from compress.gates.policy import load_policy
from compress.models import loading
from compress.pipeline import model
from compress.recipe import document
from compress.recipe.sources import NamedModel

_RECIPE = """\
version: 1
name: tiny
model: {{source: {model}}}
steps:
  - {{use: quantize.int8_rtn}}
targets: [onnxruntime-cpu]
policy: {policy}
"""
_PARENT = """\
version: 1
name: near
gates:
  - {metric: size.bytes, rule: at_least, value: 1000, because: there should be something in it}
  - {metric: size.ratio, rule: at_most, value: 0.01, because: nothing is that small}
"""
_CHILD = """\
version: 1
name: here
extends: near.yaml
gates:
  - {metric: size.ratio, rule: at_most, value: 1.0, because: it should not grow}
"""
_WAIVERS = """\
version: 1
waivers:
  - {metric: size.ratio, rule: at_most, reason: the disk is large, expires: 2999-12-31, by: Ada}
  - {metric: size.bytes, rule: at_most, reason: nobody asked, expires: 2999-12-31}
"""


@functools.cache
def _loaded(source: str) -> Any:
    return loading.load(NamedModel(source=source))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tmp_path_factory.mktemp("model") / "tiny", width=48)


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes and policies; the model is loaded and exported once for all tests."""
    monkeypatch.setattr(model, "load_named", lambda source, offline: copy.deepcopy(_loaded(source.source)))
    for name, text in (("near", _PARENT), ("here", _CHILD), ("waivers", _WAIVERS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    for policy in ("near.yaml", "here.yaml", "none"):
        reason = "reason: a trial\n" if policy == "none" else ""
        (tmp_path / f"recipe_{Path(policy).stem}.yaml").write_text(_RECIPE.format(model=tiny, policy=policy) + reason)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*words: object) -> int:
    return main([*map(str, words)])


def _report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / layout.GATE_REPORT).read_text())
    return found


def test_an_artifact_keeps_the_policy_with_all_it_extends(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unneeded = ("--waivers", "waivers.yaml")
    assert _run("run", "--recipe", "recipe_here.yaml", "--output", "out", "--quiet", *unneeded) == 0
    assert "unused waiver: size.ratio at_most, all items" in " ".join(capsys.readouterr().out.split())
    folder = place / "out" / "released" / "tiny"
    expected = load_policy("here.yaml")
    kept = (folder / layout.POLICY).read_text()
    assert kept.startswith("# here -> near, merged.\n")
    assert str(place) not in kept
    assert len(_report(folder)["waivers"]["unused"]) == 2
    assert _report(folder)["policy"] == {"name": "here", "digest": expected.digest}
    assert document.read(folder / layout.POLICY).digest == expected.digest
    assert _run("verify", folder, "--policy", "here.yaml") == 0
    assert _run("verify", folder, "--policy-digest", expected.digest) == 0
    assert _run("verify", folder, "--policy", "near.yaml") == 6
    assert _run("policy", "diff", folder, "here.yaml") == 0
    (place / "near.yaml").write_text(_PARENT.replace("value: 1000", "value: 999"))
    assert _run("verify", folder) == 0
    assert _run("verify", folder, "--policy", "here.yaml") == 6
    assert _run("policy", "diff", folder, "here.yaml") == 3


def test_a_waived_run_ends_3_and_says_so_everywhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", "--recipe", "recipe_near.yaml", "--output", "out", "--quiet")
    assert _run(*words) == 3
    (blocked,) = (place / "out" / "blocked").iterdir()
    capsys.readouterr()
    assert _run(*words, "--waivers", "waivers.yaml") == 3
    shown = " ".join(capsys.readouterr().out.split())
    (folder,) = (place / "out" / "waived").iterdir()
    assert folder.name == blocked.name == f"tiny-{_report(folder)['digest'][:8]}"
    assert not (place / "out" / "released").exists()
    report, before = _report(folder), _report(blocked)
    assert (report["status"], report["exit_code"], report["digest"]) == ("waived", 3, before["digest"])
    (found,) = [each for each in report["findings"] if each["waiver"]]
    (same,) = [each for each in before["findings"] if each["status"] == "failed"]
    assert found == {
        **same, "status": "waived",
        "waiver": {"status": "failed", "reason": "the disk is large", "expires": "2999-12-31", "by": "Ada"},
    }  # fmt: skip
    assert [each["metric"] for each in report["waivers"]["unused"]] == ["size.bytes"]
    assert _run("report", folder, "--format", "markdown") == 0
    markdown = capsys.readouterr().out
    page = (folder / layout.HTML_REPORT).read_text()
    card = (folder / layout.CARD).read_text()
    junit = (folder / layout.JUNIT).read_text()
    for text in (shown, markdown, page, card, junit):
        assert "2999-12-31" in text
        assert "the disk is large" in text
    for text in (shown, markdown, page, card):
        assert "WAIVED, NOT PASSED" in text
        assert "size.bytes" in text
    assert "2 checks hold" not in shown + markdown + page + card
    assert _run("verify", folder) == 3
    allowed = ("--allow-waived", "waivers.yaml")
    assert _run("verify", folder, "--policy", "near.yaml", *allowed) == 0
    assert "size.ratio at_most: failed, waived until 2999-12-31 by Ada (the disk is large)" in capsys.readouterr().out
    assert json.loads((place / "out" / "ledger.jsonl").read_text().splitlines()[-1])["status"] == "waived"


def test_gate_takes_waivers_and_an_ungated_run_has_none_to_take(place: Path, tiny: Path, capsys: Any) -> None:
    words = ("gate", tiny, "--reference", tiny, "--policy", "near.yaml", "--output", "out", "--quiet", "--json")
    assert _run(*words, "--waivers", "waivers.yaml") == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["status"], report["exit_code"], len(report["waivers"]["unused"])) == ("waived", 3, 1)
    assert _run("run", "--recipe", "recipe_none.yaml", "--output", "out", "--waivers", "waivers.yaml") == 2
    assert "nothing to waive" in capsys.readouterr().err
