"""The runtime file: what is written is read, and nothing that reaches outside of the artifact."""

import json

import pytest

from compress.core.errors import IntegrityError
from compress.data import runtime
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, TowerFile, Towers, Transformers

VISION = TowerFile(file="onnx/vision_model.onnx", input="pixel_values", output="image_embeds")
TEXT = TowerFile(file="onnx/text_model.onnx", input="input_ids", output="text_embeds", mask="attention_mask")
MADE = Runtime(
    target="onnxruntime-cpu", towers=Towers(vision=VISION, text=TEXT), preprocess=Transformers(), logit_scale=18.3
)
PLAIN = Plain(image=PlainImage(size=(8, 8)), text=PlainText(tokenizer="bytes", length=6))


@pytest.mark.parametrize("made", [MADE, MADE.model_copy(update={"preprocess": PLAIN})], ids=["transformers", "plain"])
def test_round_trip_and_same_bytes(tmp_path, made):
    runtime.write(tmp_path, made)
    assert runtime.read(tmp_path) == made
    first = (tmp_path / runtime.FILE).read_bytes()
    runtime.write(tmp_path, runtime.read(tmp_path))
    assert (tmp_path / runtime.FILE).read_bytes() == first


def _changed(path, value):
    data = MADE.model_dump(mode="json")
    at = data
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["towers", "vision", "file"], "../vision_model.onnx"),
        (["towers", "vision", "file"], "/onnx/vision_model.onnx"),
        (["towers", "vision", "file"], "onnx//vision_model.onnx"),
        (["towers", "vision", "file"], "onnx\\vision_model.onnx"),
        (["towers", "text", "file"], "onnx/\0.onnx"),
        (["towers"], {}),
        (["version"], 2),
        (["extra"], 1),
        (["logit_scale"], 0),
        (["session", "providers"], []),
        (["session", "providers"], ["CPU; rm"]),
        (["preprocess"], {"kind": "code"}),
        (["preprocess"], {"kind": "plain", "image": {"size": [8, 8]}}),
    ],
)
def test_refused(tmp_path, path, value):
    (tmp_path / "compress").mkdir()
    (tmp_path / runtime.FILE).write_text(json.dumps(_changed(path, value)))
    with pytest.raises(IntegrityError):
        runtime.read(tmp_path)


def test_missing(tmp_path):
    with pytest.raises(IntegrityError, match="cannot be read"):
        runtime.read(tmp_path)
