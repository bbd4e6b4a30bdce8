"""Whole runs where they may write little, or must tell nothing: a full disk, a home folder, a name, a token."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PRIVATE = {
    "USER": "someone-private", "LOGNAME": "someone-private", "HF_TOKEN": "hf_privatecanaryprivatecanaryprivate",
    "SOME_API_KEY": "sk-privatecanary", "HOSTNAME": "private-host",
}  # fmt: skip
RECIPE = """
version: 1
name: tiny
model: {{source: {model}}}
data:
  calibration: {{source: scenes, samples: 20}}
steps:
  - {{use: quantize.int8_static}}
targets: [onnxruntime-cpu]
policy: {policy}
"""
POLICY = """
version: 1
name: near
tasks:
  parity: {split: release, items: 40}
gates:
  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: "<script>alert(1)</script>"}
  - {metric: size.ratio, rule: at_most, value: 1.0, because: it should not grow}
"""


def run(home, output, limit=None):
    """Run the recipe in `home` as a user whose home that is, allowed files of at most `limit` bytes."""
    cap = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    words = [sys.executable, "-m", "compress", "run", "--recipe", str(home / "tiny.yaml"), "--output", str(output)]
    environment = {**os.environ, **PRIVATE, "HOME": str(home)}
    return subprocess.run(
        [*words, "--quiet"], cwd=home, env=environment, capture_output=True, text=True, check=False, preexec_fn=cap
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "someone-private"
    folder.mkdir()
    tiny_clip.save(folder / "models" / "tiny", width=48)
    (folder / "near.yaml").write_text(POLICY)
    recipe = RECIPE.format(model=folder / "models" / "tiny", policy=folder / "near.yaml")
    (folder / "tiny.yaml").write_text(recipe)
    return folder


@pytest.fixture(scope="module")
def whole(home):
    """The files that a run writes when nothing stops it."""
    ran = run(home, home / "whole")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return sorted(path for path in (home / "whole").rglob("*") if path.is_file())


def test_no_file_tells_who_ran_it_where_or_with_which_token(home, whole):
    artifact = [path for path in whole if "released" in path.parts]
    assert {"report.html", "gate_report.json", "manifest.json", "README.md"} <= {path.name for path in artifact}
    told = {
        word
        for path in whole
        for word in (*PRIVATE.values(), str(home.parent), str(Path.cwd()))
        if word.encode() in path.read_bytes()
    }
    assert not told


def test_a_label_is_escaped_in_the_report(whole):
    (report,) = [path for path in whole if path.name == "report.html"]
    text = report.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text


def limit_below(whole, name):
    return max(path.stat().st_size for path in whole if path.name == name) - 1


@pytest.mark.parametrize("name", ["vision_model.onnx", "vision_model_int8.onnx", "samples.parquet"])
def test_a_full_disk_ends_with_7_and_publishes_nothing(home, whole, tmp_path, name):
    ran = run(home, tmp_path, limit_below(whole, name))
    assert ran.returncode == 7, ran.stdout + ran.stderr
    assert "make room" in ran.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "staging" not in path.parts and
                {"released", "blocked", "ungated"} & set(path.parts)]  # fmt: skip


def test_when_there_is_room_again_the_same_run_makes_the_same_artifact(home, whole, tmp_path):
    assert run(home, tmp_path, limit_below(whole, "report.html")).returncode == 7
    again = run(home, tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    (first,) = [path for path in whole if path.name == "gate_report.json"]
    made = tmp_path / "released" / "tiny" / "compress" / "gate_report.json"
    assert json.loads(made.read_text())["digest"] == json.loads(first.read_text())["digest"]
