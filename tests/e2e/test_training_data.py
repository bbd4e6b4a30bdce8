"""A recipe that trains on shards: from the files to the curves of the report, and what the artifact says of it."""

import io
import json
import tarfile

import pytest
import tiny_towers
from PIL import Image

from compress.artifact import layout
from compress.cli.main import main
from compress.pipeline import provenance
from compress.pipeline.options import Options

RECIPE = """
version: 1
name: trained
model:
  source: onnx
  vision: ./vision.onnx
  text: ./text.onnx
  preprocess: {{image: {{size: [8, 8]}}, text: {{tokenizer: bytes, length: 8}}}}
data:
  training: {{source: ./shards, feeding: {{streaming: true, augment: photo, rendered: {rendered}, workers: 0}}}}
steps:
  - {{use: quantize.int4_rtn, block: 16, exclude: [projection], towers: [vision]}}
  - {{use: distill.qad, towers: [vision], steps: 3, batch: 4, tracker: {tracker}}}
targets: [onnxruntime-cpu]
policy: none
reason: a test of training data
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Tiny towers beside a shard of six images with captions, as the working directory."""
    tiny_towers.write(tmp_path)
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a.tar", "w") as tar:
        for at in range(6):
            held = io.BytesIO()
            Image.linear_gradient("L").rotate(60 * at).resize((16, 16)).save(held, "PNG")
            for ending, content in (("png", held.getvalue()), ("txt", f"turned by {60 * at}".encode())):
                told = tarfile.TarInfo(f"{at}.{ending}")
                told.size = len(content)
                tar.addfile(told, io.BytesIO(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place, rendered=0.25, tracker="none", *words):
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(rendered=rendered, tracker=tracker))
    return main(["distill", "--recipe", str(recipe), "--output", str(place / "out"), "--quiet", "--json", *words])


def test_from_shards_to_curves(place, capsys):
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    assert run(place, tracker="tensorboard") == 4  # no policy: nothing is released
    report = json.loads(capsys.readouterr().out)
    first, second = report["steps"]
    assert first["curves"] == []
    curves = {each["name"]: each for each in second["curves"]}
    assert len(curves["loss"]["steps"]) == len(curves["loss"]["values"]) == 3
    artifact = place / "out" / "ungated" / "trained"
    assert "Training: distill.qad" in (artifact / layout.HTML_REPORT).read_text()
    assert list((place / "out" / "cache" / "runs" / "trained-step1").iterdir())
    (seen,) = provenance.seen_by(artifact, Options(output=place / "out")).chunks()
    assert seen.ids == tuple(f"training/{at}" for at in range(6))  # and no rendered text


def test_data_that_cannot_be_trained_on(place, capsys):
    (place / "shards" / "a.tar").write_bytes(b"no archive" * 100)
    assert run(place) == 2
    assert "cannot be read" in capsys.readouterr().err
    (place / "shards" / "a.tar").unlink()
    assert run(place) == 2
    assert "the folder holds 0 of labels.jsonl, *.tar, *.parquet" in capsys.readouterr().err


def test_an_option_that_is_none(place, capsys):
    assert run(place, rendered="1.0") == 2
    assert "data.training.feeding.rendered" in capsys.readouterr().err
