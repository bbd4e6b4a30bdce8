"""`compress policy` through the command line, and that no run can weaken a policy from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.artifact import layout
from compress.cli.main import main
from compress.gates.policy import load_policy
from compress.gates.policy_file import bundled_policies

_CHILD = """\
version: 1
name: mine
extends: clip_release
gates:
  - {metric: size.ratio, rule: at_most, value: VALUE, because: it has to fit}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(_CHILD.replace("VALUE", "0.25"))
    Path("weaker.yaml").write_text(_CHILD.replace("VALUE", "0.5"))
    Path("broken.yaml").write_text(_CHILD.replace("VALUE", "big"))
    return tmp_path


Run = pytest.CaptureFixture[str]


def test_list(capsys: Run) -> None:
    assert main(["policy", "list"]) == 0
    plain = capsys.readouterr().out
    assert main(["policy", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(bundled_policies())
    for row in rows:
        assert row["digest"] == load_policy(row["name"]).digest
        assert row["digest"] in plain


def test_show(place: Path, capsys: Run) -> None:
    assert main(["policy", "show", "mine.yaml"]) == 0
    assert capsys.readouterr().out == (place / "mine.yaml").read_text()
    assert main(["policy", "show", "mine.yaml", "--resolved"]) == 0
    (place / "resolved.yaml").write_text(capsys.readouterr().out)
    assert load_policy("resolved.yaml") == load_policy("mine.yaml")
    assert main(["policy", "show", "mine.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["digest"] == load_policy("mine.yaml").digest
    assert len(shown["policy"]["gates"]) == len(load_policy("clip_release").gates)


def test_check(place: Path, capsys: Run) -> None:
    digest = load_policy("mine.yaml").digest
    assert main(["policy", "check", "mine.yaml", "clip_release"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"ok mine.yaml {digest}"
    assert main(["policy", "check", "mine.yaml", "broken.yaml", "absent"]) == 2
    told = capsys.readouterr()
    assert "broken.yaml:5:41 gates[0].value: must be a number, not 'big'" in told.err
    assert "no policy 'absent'" in told.err
    assert main(["policy", "check", "mine.yaml", "broken.yaml", "--json"]) == 2
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["ok"], good["digest"], good["problems"]) == (True, digest, [])
    assert (bad["ok"], bad["digest"]) == (False, None)
    assert [(each["line"], each["column"], each["path"]) for each in bad["problems"]] == [(5, 41, "gates[0].value")]


def test_digest(place: Path, capsys: Run) -> None:
    assert main(["policy", "digest", "mine.yaml"]) == 0
    assert capsys.readouterr().out.strip() == load_policy("mine.yaml").digest
    assert main(["policy", "digest", "mine.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "mine", "digest": load_policy("mine.yaml").digest}
    assert main(["policy", "digest", "broken.yaml"]) == 2


def test_diff_ends_3_only_if_something_was_loosened(place: Path, capsys: Run) -> None:
    assert main(["policy", "diff", "mine.yaml", "mine.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no difference"
    assert main(["policy", "diff", "weaker.yaml", "mine.yaml"]) == 0
    assert "tightened  size.ratio at_most  value: 0.5 -> 0.25" in capsys.readouterr().out
    assert main(["policy", "diff", "mine.yaml", "weaker.yaml"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[2:] == ["loosened   size.ratio at_most  value: 0.25 -> 0.5", "1 loosened, 0 tightened, 0 changed"]
    assert main(["policy", "diff", "clip_release", "mine.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["loosened"], found["exit_code"], found["new"]["name"]) == (False, 0, "mine")
    assert {each["kind"] for each in found["differences"]} == {"tightened", "changed"}
    assert main(["policy", "diff", "mine.yaml", "weaker.yaml", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3
    assert main(["policy", "diff", "mine.yaml", "broken.yaml"]) == 2


def test_an_artifact_goes_for_its_policy(place: Path, capsys: Run) -> None:
    kept = place / "artifact" / layout.POLICY
    kept.parent.mkdir(parents=True)
    assert main(["policy", "digest", "artifact"]) == 2
    assert "holds no policy" in capsys.readouterr().err
    kept.write_text(_CHILD.replace("VALUE", "0.5"))
    assert main(["policy", "diff", "artifact", "mine.yaml"]) == 0
    assert main(["policy", "diff", "mine.yaml", "artifact"]) == 3


def test_verify_pins_what_a_policy_is_with_its_parents(place: Path, capsys: Run) -> None:
    """Up to the digest; tests/e2e/test_policies.py verifies an artifact with it."""
    from compress.cli.commands.verify import _pin

    assert _pin(place / "mine.yaml", None) == load_policy("mine.yaml").digest
    assert _pin(place / "mine.yaml", load_policy("mine.yaml").digest) == load_policy("mine.yaml").digest


@pytest.mark.parametrize("command", ["quantize", "run", "plan"])
@pytest.mark.parametrize(
    "setting",
    [
        "gates.0.margin=0.9",
        "gates=[]",
        "policy.gates.0.margin=0.9",
        "policy={gates: []}",
        "tasks.reading.items=2",
        "waivers=[]",
        "without=[]",
    ],
)
def test_a_run_sets_nothing_of_a_policy(place: Path, capsys: Run, command: str, setting: str) -> None:
    assert main([command, "--recipe", "int4_clip", "--set", setting, "--output", "out"]) == 2
    assert f"--set {setting.split('=', maxsplit=1)[0]}" in capsys.readouterr().err
    assert not (place / "out").exists()


@pytest.mark.parametrize("words", [["gate", "x", "--policy", "clip_release", "--reference", "y"], ["export", "x"]])
def test_what_takes_no_recipe_takes_no_set(words: list[str], capsys: Run) -> None:
    assert main([*words, "--set", "gates.0.margin=0.9"]) == 2
    assert "No such option" in capsys.readouterr().err


_WAIVERS = "version: 1\nwaivers:\n  - {metric: size.ratio, rule: at_most, reason: x, expires: DAY}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["quantize", "--recipe", "int4_clip"],
        ["run", "--recipe", "int4_clip"],
        ["plan", "--recipe", "int4_clip"],
        ["export", "pocket-clip", "--target", "onnxruntime-cpu"],
        ["gate", "pocket-clip", "--policy", "clip_release", "--reference", "pocket-clip"],
    ],
    ids=lambda words: words[0],
)
def test_an_expired_waiver_stops_a_run_before_it_begins(place: Path, words: list[str], capsys: Run) -> None:
    (place / "waivers.yaml").write_text(_WAIVERS.replace("DAY", "2020-02-29"))
    assert main([*words, "--waivers", "waivers.yaml", "--output", "out"]) == 2
    assert "size.ratio at_most: expired on 2020-02-29 (x)" in capsys.readouterr().err
    (place / "waivers.yaml").write_text(_WAIVERS.replace("DAY", "soon"))
    assert main([*words, "--waivers", "waivers.yaml", "--output", "out"]) == 2
    assert "waivers.yaml:3:52 waivers[0].expires: must be a day" in capsys.readouterr().err
    assert not (place / "out").exists()
