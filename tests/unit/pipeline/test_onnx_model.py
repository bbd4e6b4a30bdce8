"""A recipe's ONNX towers with a tokenizer that lies in a file of its own."""

import numpy as np
import pytest
import tiny_towers
from tokenizers import Tokenizer, models, pre_tokenizers

from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.preprocess import open_preprocess
from compress.pipeline import model
from compress.recipe.sources import OnnxModel
from compress.targets import onnxruntime_cpu


def source(files, tokenizer):
    preprocess = {"image": {"size": (8, 8)}, "text": {"tokenizer": tokenizer, "length": 5, "pad": 7}}
    return OnnxModel.model_validate(
        {"source": "onnx", "vision": str(files["vision"]), "text": str(files["text"]), "preprocess": preprocess}
    )


@pytest.fixture
def tokenizer(tmp_path):
    made = Tokenizer(models.WordLevel({"a": 1, "red": 2, "square": 3, "?": 4, "[PAD]": 7}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "words"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("named", ["words", "words/tokenizer.json"])
def test_the_tokenizer_travels_with_the_towers(tmp_path, tokenizer, named):
    files = tiny_towers.write(tmp_path)
    encoder = model.load(source(files, named), tmp_path / "recipe.yaml", offline=True)
    assert encoder.files == {"tokenizer.json": (tokenizer / "tokenizer.json").read_bytes()}
    out = tmp_path / "out"
    onnxruntime_cpu.export(encoder, out)
    ids, mask = open_preprocess(out, runtime.read(out)).texts(["a red square", "a b a a a a a"])
    assert ids.tolist() == [[1, 2, 3, 7, 7], [1, 4, 1, 1, 1]]
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0, 0], [1] * 5])


def test_a_tokenizer_that_is_missing_or_none(tmp_path, tokenizer):
    files = tiny_towers.write(tmp_path)
    with pytest.raises(UsageError, match="No such file") as caught:
        model.load(source(files, "elsewhere"), tmp_path / "recipe.yaml", offline=True)
    assert caught.value.where.endswith("elsewhere")
    (tokenizer / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer file"):
        model.load(source(files, "words"), tmp_path / "recipe.yaml", offline=True)


def test_a_tower_of_a_compressed_artifact_is_no_original(tmp_path):
    """It would be the reference of what is made of it, and ten small losses would never be seen together."""
    (tmp_path / "onnx").mkdir()
    files = tiny_towers.write(tmp_path / "onnx")
    made = tmp_path / "compress" / "recipe.resolved.yaml"
    made.parent.mkdir()
    made.write_text(
        "version: 1\nname: before\nmodel: {source: ./towers}\nsteps: [{use: quantize.int8_rtn}]\n"
        "targets: [onnxruntime-cpu]\npolicy: none\nreason: test\n"
    )
    with pytest.raises(UsageError, match="losses would add up"):
        model.load(source(files, "bytes"), tmp_path / "recipe.yaml", offline=True)
    made.write_text(made.read_text().replace("[{use: quantize.int8_rtn}]", "[]"))
    assert model.load(source(files, "bytes"), tmp_path / "recipe.yaml", offline=True).towers
