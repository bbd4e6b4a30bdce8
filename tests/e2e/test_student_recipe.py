"""A recipe that gives a model a light text tower: from the command line to an artifact, or to what is wrong."""

import json

import pytest
import tiny_clip

from compress.artifact import layout
from compress.cli.main import main

RECIPE = """
version: 1
name: light
model: {{source: ./original}}
data:
  training: {{source: scenes, split: train, samples: 48}}
steps:
  - {{use: distill.student, towers: [text], {student}}}
  - {{use: distill.features, towers: [text], steps: 4, batch: 8}}
  - {{use: quantize.int8_rtn, towers: [text]}}
targets: [onnxruntime-cpu]
policy: none
reason: a test of students
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, student):
    (place / "light.yaml").write_text(RECIPE.format(student=student))
    return "--recipe", "light.yaml"


@pytest.mark.long
def test_from_a_smaller_model_to_an_artifact(place, capsys):
    """The output folder is named relative to where the command runs; no file says where anything lay."""
    tiny_clip.save(place / "original")
    tiny_clip.save(place / "smaller", width=16, seed=1)
    named = write(place, f"source: {place / 'smaller'}")
    assert main(["distill", *named, "--output", "out", "--quiet", "--json"]) == 4  # no policy: nothing is released
    first, second, third = json.loads(capsys.readouterr().out)["steps"]
    assert "36 of 36 tensors of smaller, linear map from 16 to 32 numbers" in first["summary"]
    assert [curve["name"] for curve in second["curves"]] == ["loss", "held-out loss"]
    assert {row["tower"] for row in third["rows"]} == {"text"}
    artifact = place / "out" / "ungated" / "light"
    config = json.loads((artifact / "config.json").read_text())
    assert config["text_config"]["hidden_size"] == 16
    assert config["projection_dim"] == config["vision_config"]["hidden_size"] == 32
    assert json.loads((artifact / layout.STRUCTURE).read_text())["origin"]["source"] == "./original"
    assert 'source: "./smaller"' in (artifact / layout.RECIPE).read_text()
    for file in artifact.rglob("*"):
        assert file.is_dir() or str(place).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ("map: linear", "say what the student is"),
        ("size: halved", "steps[0].size: must be 'half'"),
        ("size: half, revision: main", "only a hub id has a revision"),
        ("size: half, layers: 2", "layers"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_loaded(place, capsys, student, told):
    assert main(["distill", *write(place, student)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("light.yaml:") == 1
