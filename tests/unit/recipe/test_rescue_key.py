"""What a recipe may say under `rescue:`."""

import pytest

from compress.core.errors import DocumentError
from compress.recipe.load import dump, load
from compress.steps import spec_of

RECIPE = """version: 1
name: r
model: {source: pocket-clip}
steps:
  - {use: quantize.int4_rtn}
targets: [onnxruntime-cpu]
policy: clip_release
"""


def read(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    return load(file, spec_of)


def test_either_budget_is_enough_and_is_written_back(tmp_path):
    made = read(tmp_path, RECIPE + "rescue: {max_size_ratio: 0.3}\n")
    assert (made.rescue.max_size_ratio, made.rescue.max_latency_ratio) == (0.3, None)
    assert read(tmp_path, dump(made)) == made
    assert read(tmp_path, RECIPE + "rescue: {max_latency_ratio: 1}\n").rescue.max_latency_ratio == 1


def test_a_recipe_without_it_keeps_its_digest(tmp_path):
    assert "rescue" not in read(tmp_path, RECIPE).resolved()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rescue: {}\n", "give max_size_ratio, max_latency_ratio or both"),
        ("rescue: {max_size_ratio: 0}\n", "greater than 0"),
        ("rescue: {max_size_ratio: '0.3'}\n", "rescue.max_size_ratio"),
        ("rescue: {max_sise_ratio: 0.3}\n", "did you mean max_size_ratio"),
        ("rescue: {max_size_ratio: .nan}\n", "NaN"),
        ("rescue: true\n", "rescue"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, text, message):
    with pytest.raises(DocumentError) as told:
        read(tmp_path, RECIPE + text)
    assert message in str(told.value)
    assert "r.yaml:8:" in str(told.value)


def test_there_must_be_gates_and_something_to_change(tmp_path):
    ungated = RECIPE.replace("policy: clip_release", "policy: none\nreason: a test") + "rescue: {max_size_ratio: 0.3}\n"
    with pytest.raises(DocumentError, match="nothing could fail"):
        read(tmp_path, ungated)
    pruned = RECIPE.replace("{use: quantize.int4_rtn}", "{use: prune.mlp, ratio: 0.5}")
    with pytest.raises(DocumentError, match="needs a quantize step"):
        read(tmp_path, pruned + "rescue: {max_size_ratio: 0.3}\n")
