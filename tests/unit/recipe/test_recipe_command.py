"""`compress recipe list | show | check | schema`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_sample import GOOD, METHODS, spec_of

from compress.cli.commands import recipe as commands
from compress.cli.main import main
from compress.recipe import load as loading
from compress.recipe.load import load


@pytest.fixture(autouse=True)
def _own_methods_and_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped" / "real").mkdir(parents=True)
    (tmp_path / "shipped" / "one.yaml").write_text(GOOD)
    (tmp_path / "shipped" / "real" / "two.yaml").write_text(GOOD + "description: it is real\n")
    monkeypatch.setattr(loading, "bundled", lambda *parts: tmp_path / "shipped")
    monkeypatch.setattr(commands, "bundled_policies", dict)
    monkeypatch.setattr(commands, "spec_of", spec_of)
    monkeypatch.setattr(commands, "method_names", lambda: tuple(METHODS))
    monkeypatch.chdir(tmp_path)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one",
        "  quantize.round -> prune.heads; policy clip_release",
        "real/two",
        "  quantize.round -> prune.heads; policy clip_release",
        "  it is real",
    ]
    assert main(["recipe", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "real/two",
        "steps": ["quantize.round", "prune.heads"],
        "policy": "clip_release",
        "description": "it is real",
    }


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "show", "one"]) == 0
    assert capsys.readouterr().out == GOOD
    assert main(["recipe", "show", "one", "--resolved"]) == 0
    Path("again.yaml").write_text(capsys.readouterr().out)
    assert load(Path("again.yaml"), spec_of) == load("one", spec_of)
    assert main(["recipe", "show", "onee"]) == 2
    assert capsys.readouterr().err == "compress: no recipe 'onee'\n  did you mean one\n"


def test_check_tells_every_problem_of_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(GOOD.replace("block", "blok").replace("small_clip", "a/b"))
    digest = load("one", spec_of).digest
    assert main(["recipe", "check", "one"]) == 0
    assert capsys.readouterr().out == f"ok one {digest}\n"
    assert main(["recipe", "check", "one", "bad.yaml", "three"]) == 2
    told = capsys.readouterr()
    assert told.out == f"ok one {digest}\n"
    assert [line.split(": ")[0] for line in told.err.splitlines()[:3]] == [
        "bad.yaml:2:1 name",
        "bad.yaml:7:27 steps[0].blok",
        "no recipe 'three'",
    ]


def test_check_as_json_and_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", "one", "--json", "--set", "seed=x"]) == 2
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["recipe"], report["ok"], report["digest"]) == ("one", False, None)
    assert report["problems"] == [
        {
            "line": 1,
            "column": 1,
            "path": "--set seed",
            "what": "must be a whole number, not 'x'",
            "hint": "",
            "file": "",
        }
    ]
    assert main(["recipe", "check", "one", "--json", "--set", "seed=3"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["digest"] == load("one", spec_of, ["seed=3"]).digest


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "schema"]) == 0
    steps = json.loads(capsys.readouterr().out)["properties"]["steps"]["items"]["oneOf"]
    assert [each["title"] for each in steps] == ["prune.heads", "quantize.round"]


def test_the_recipe_layer_loads_no_machine_learning_library() -> None:
    heavy = "torch transformers onnx onnxruntime datasets matplotlib scipy"
    code = f"import sys, compress.recipe.load; sys.exit(' '.join(set('{heavy}'.split()) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stderr == b"\n"
