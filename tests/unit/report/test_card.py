import re

import pytest
import report_sample
from ruamel.yaml import YAML

from compress.report import card
from compress.report.document import Document


def render(data) -> str:
    return card.render(Document.model_validate(data))


def front(text: str):
    _, matter, rest = text.split("---\n", 2)
    return YAML(typ="safe").load(matter), rest


def test_front_matter():
    matter, _ = front(render(report_sample.passed()))
    assert matter == {
        "library_name": "onnx",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["compress", "onnx", "quantize.int4_rtn"],
    }


def test_a_model_of_the_hub_is_the_base_model():
    data = report_sample.passed()
    data["model"] |= {"source": "openai/clip", "license": "mit"}
    matter, _ = front(render(data))
    assert (matter["base_model"], matter["base_model_relation"], matter["license"]) == (
        "openai/clip",
        "quantized",
        "mit",
    )


@pytest.mark.parametrize("source", ["./model", "/models/clip", "model.onnx", "a/b/c"])
def test_a_path_is_no_base_model(source):
    data = report_sample.passed()
    data["model"]["source"] = source
    assert "base_model" not in front(render(data))[0]


def test_says_how_to_load_what_was_lost_and_what_decided():
    text = render(report_sample.blocked())
    assert 'onnxruntime.InferenceSession("onnx/vision_model_q4.onnx")' in text
    assert "size=6-8: 47.0 % (46.0 to 48.0) became 32.9 % (31.9 to 33.9), a drop of 14.10 pt" in text
    assert "| ✕ failed | reading.accuracy | size=6-8 |" in text
    assert "a" * 64 in text
    assert "**BLOCKED.**" in text


@pytest.mark.parametrize(
    "make", [report_sample.bare, report_sample.ungated, report_sample.undecided], ids=["bare", "ungated", "undecided"]
)
def test_any_status_has_a_card(make):
    assert render(make()) == render(make())


def test_no_text_becomes_markup_or_another_cell():
    payload = "a|b\n# c <img src=x> [x](http://evil.example) `code` *d* ---"
    data = report_sample.blocked() | {"name": payload}
    data["model"]["source"] = payload
    for each in (*data["scores"], *data["findings"]):
        each["metric"] = payload
    data["sizes"][0]["file"] = payload
    matter, rest = front(render(data))
    assert "base_model" not in matter
    prose = re.sub(r"```.*?```", "", rest, flags=re.DOTALL)
    assert "<img" not in prose
    assert "http://" not in prose
    assert "\n# c" not in prose
    tables = [line for line in prose.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert cells == {10, 7, 4}  # nine, six and three columns


def test_a_torch_artifact_is_loaded_by_transformers():
    told = report_sample.passed()
    told["sizes"][0]["file"] = "torch/vision_model_nf4.safetensors"
    shown = card.render(Document.model_validate(told))
    assert "from_pretrained(PATH)" in shown
    assert "onnxruntime" not in shown
    assert 'library_name: "transformers"' in shown
