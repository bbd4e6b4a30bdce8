"""`compress gate` on ONNX files that another tool made: what it needs to be told, and what it tells."""

import json
from xml.etree import ElementTree

import onnx
import pytest
import tiny_towers
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic

from compress.cli.main import main
from compress.core.errors import DocumentError, UsageError
from compress.data import runtime
from compress.data.runtime import Runtime, TowerFile
from compress.pipeline import foreign, inputs
from compress.recipe import statement
from compress.targets import onnxruntime_cpu
from compress.targets.graph.contents import Contents

POLICY = """
version: 1
name: near
tasks:
  parity: {split: release, items: 8}
gates:
  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: it should stay near}
  - {metric: size.ratio, rule: at_most, value: 1.5, because: tiny towers are mostly names}
"""
STATED = "data:\n  calibration: {source: scenes, split: %s, samples: 8}\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a policy, an exported reference, and its towers quantized by ONNX Runtime."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tiny_towers, "VOCABULARY", 256)  # its tokens are bytes
    (tmp_path / "source").mkdir()
    tiny_encoder = tiny_towers.encoder(tmp_path / "source")
    (tmp_path / "near.yaml").write_text(POLICY)
    onnxruntime_cpu.export(tiny_encoder, tmp_path / "reference")
    (tmp_path / "made").mkdir()
    for kind in ("vision", "text"):
        quantize_dynamic(tmp_path / "reference" / "onnx" / f"{kind}_model.onnx", tmp_path / "made" / f"{kind}_q.onnx")
    return tmp_path


def gate(*words):
    return main(["gate", *map(str, words), "--policy", "near.yaml", "--reference", "reference", "--quiet"])


def result(capsys):
    return json.loads(capsys.readouterr().out)


def test_files_of_another_tool_are_judged(place, capsys):
    (place / "stated.yaml").write_text(STATED % "calibration")
    assert gate("made", "--calibration", "stated.yaml", "--report", "told", "--json") == 0
    report = result(capsys)
    assert (report["name"], report["status"], report["exit_code"]) == ("made", "passed", 0)
    assert report["calibration"]["stated_by"] == "the user"
    assert report["calibration"]["data"]["calibration"]["split"] == "calibration"
    vision = report["towers"]["vision"]
    assert vision["from"] == "vision_q.onnx"
    products, inputs_of_them = (
        7,
        6,
    )  # q, k, v, out, fc1, fc2, projection; q, k and v share an input, the patches add one
    assert vision["operators"]["MatMulInteger"] == products
    assert vision["operators"]["DynamicQuantizeLinear"] == inputs_of_them
    assert {"int8", "float"} <= vision["weights"].keys()
    assert sum(vision["parts"].values()) == (place / "made" / "vision_q.onnx").stat().st_size
    told = {path.name: path.read_text() for path in (place / "told").iterdir()}
    assert json.loads(told["gate_report.json"]) == report
    assert ElementTree.fromstring(told["gate_report.junit.xml"]).get("failures") == "0"
    assert "as stated by the user" in told["summary.md"]
    assert "PASSED" in told["summary.md"]
    assert list((place / "artifacts" / "cache").glob(".gate-*")) == []


def test_without_a_statement_nothing_is_decided(place, capsys):
    assert gate("made", "--json") == 4
    told = {each["metric"]: each for each in result(capsys)["findings"]}
    assert told["parity.p1_cosine"]["status"] == "inconclusive"
    assert "--calibration none" in told["parity.p1_cosine"]["reason"]
    assert "--calibration FILE.yaml" in told["parity.p1_cosine"]["reason"]
    assert told["size.ratio"]["status"] == "passed"


def test_stated_data_are_held_against_the_items(place, capsys):
    (place / "stated.yaml").write_text(STATED % "release")
    assert gate("made", "--calibration", "stated.yaml", "--json") == 4
    assert "items were seen by a step" in result(capsys)["findings"][0]["reason"]


def test_one_file_is_a_vision_tower_beside_the_text_tower_of_the_reference(place, capsys):
    assert gate("made/vision_q.onnx", "--calibration", "none") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "text tower: of the reference, unchanged" in shown
    assert "calibrated on no data, as stated by the user" in shown


def test_a_tower_of_noise_is_blocked(place, capsys):
    model = onnx.load("made/vision_q.onnx")
    scale = next(each for each in model.graph.initializer if each.name.endswith("_scale"))
    scale.float_data[:] = [-7.0 * each for each in scale.float_data]
    onnx.save(model, "broken.onnx")
    assert gate("--vision", "broken.onnx", "--text", "made/text_q.onnx", "--calibration", "none", "--json") == 3
    assert result(capsys)["findings"][0]["status"] == "failed"


def test_weights_beside_a_file_come_along(place):
    model = onnx.load("reference/onnx/vision_model.onnx")
    (place / "large").mkdir()
    onnx.save(model, "large/image.onnx", save_as_external_data=True, location="image.bin", size_threshold=1024)
    (place / "large" / "text.onnx").write_bytes((place / "made" / "text_q.onnx").read_bytes())
    assert gate("large", "--calibration", "none") == 0


# ---------------------------------------------------------------- names, without running anything

LIKE = Runtime.model_validate(
    {
        "target": "onnxruntime-cpu",
        "towers": {"text": {"file": "onnx/text_model.onnx", "input": "input_ids", "output": "text_embeds"}},
        "preprocess": {"kind": "transformers"},
        "logit_scale": 10.0,
    }
)


def held(takes, gives):
    return Contents(tuple(takes.split()), tuple(gives.split()), (), {}, {}, {}, {})


@pytest.mark.parametrize(
    ("takes", "gives", "described", "expected"),
    [
        ("input_ids", "text_embeds", False, ("input_ids", "text_embeds", None)),
        ("attention_mask input_ids", "pooled text_embeds", False, ("input_ids", "text_embeds", "attention_mask")),
        ("input_ids extra", "text_embeds", False, None),
        ("ids", "text_embeds", False, None),
        ("input_ids", "pooled", False, None),
        ("ids", "pooled", True, ("ids", "pooled", None)),
        ("ids mask", "pooled", True, ("ids", "pooled", "mask")),
        ("ids mask types", "pooled", True, None),
        ("ids", "pooled hidden", True, None),
    ],
)
def test_inputs_are_matched_by_name(takes, gives, described, expected):
    asked = LIKE.towers.text
    if expected is None:
        with pytest.raises(UsageError) as caught:
            inputs.matched("text", held(takes, gives), asked, "onnx/text.onnx", described)
        for name in (*takes.split(), *gives.split(), "input_ids", "text_embeds"):
            assert name in str(caught.value)
        return
    made = inputs.matched("text", held(takes, gives), asked, "onnx/text.onnx", described)
    names = dict(zip(("input", "output", "mask"), expected, strict=True))
    assert made == TowerFile(file="onnx/text.onnx", **names)


def test_names_that_do_not_match_end_with_2_and_all_names(place, capsys):
    model = onnx.load("made/vision_q.onnx")
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        node.input[:] = ["x" if name == "pixel_values" else name for name in node.input]
    onnx.save(model, "renamed.onnx")
    assert gate("renamed.onnx", "--calibration", "none") == 2
    told = capsys.readouterr().err
    assert "takes x and gives image_embeds; the reference takes pixel_values and gives image_embeds" in told
    assert "--preprocess" in told
    (place / "made.yaml").write_text(f"preprocess: {{image: {{size: [{tiny_towers.SIDE}, {tiny_towers.SIDE}]}}}}\n")
    assert gate("renamed.onnx", "--calibration", "none", "--preprocess", "made.yaml") == 0


def test_a_description_goes_over_the_reference(tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text("source: onnx\npreprocess: {text: {tokenizer: bytes, length: 9}}\nlogit_scale: 3\n")
    with pytest.raises(UsageError, match=r"preprocess\.image is required as well"):
        inputs.read(file).applied(LIKE)  # the reference has a processor, which makes no pixels for others
    plain = LIKE.model_copy(update={"preprocess": runtime.Plain(image=runtime.PlainImage(size=(4, 4)))})
    made = inputs.read(file).applied(plain)
    assert (made.preprocess.image.size, made.preprocess.text.length, made.logit_scale) == ((4, 4), 9, 3.0)
    file.write_text("preprocess: {image: {size: [4, 4]}}\nvision: tower.onnx\n")
    with pytest.raises(DocumentError, match="vision"):
        inputs.read(file)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["vision_model.onnx", "text_model.onnx"], ("vision_model.onnx", "text_model.onnx")),
        (["onnx/image_encoder.onnx", "onnx/text_encoder.onnx"], ("image_encoder.onnx", "text_encoder.onnx")),
        (["vision_model.onnx", "vision_model_q4.onnx", "text_model.onnx"], "2 of its ONNX files look like a vision"),
        (["model.onnx", "text.onnx"], "0 of its ONNX files look like a vision tower"),
        (["vision.onnx", "text.onnx", "model.safetensors"], "only one of them can be meant"),
        (["model.safetensors"], None),
    ],
)
def test_which_file_is_which_tower(tmp_path, names, expected):
    (tmp_path / "onnx").mkdir()
    for name in names:
        (tmp_path / name).touch()
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            foreign.found(tmp_path)
    else:
        made = foreign.found(tmp_path)
        assert (made and tuple(path.name for path in made.files.values())) == expected


@pytest.mark.parametrize("text", ["data: {}\n", "calibration: {source: scenes}\n", "none\n", "data: [scenes]\n"])
def test_what_is_no_statement(tmp_path, text):
    (tmp_path / "stated.yaml").write_text(text)
    with pytest.raises(DocumentError):
        statement.read(str(tmp_path / "stated.yaml"))


def test_a_statement_keeps_no_path(tmp_path):
    (tmp_path / "stated.yaml").write_text(f"data: {{photos: {{source: {tmp_path}/photos}}}}\n")
    assert statement.told(statement.read(str(tmp_path / "stated.yaml")))["photos"]["source"] == "./photos"
    assert statement.read("none") == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name what is to be judged"),
        (["made", "--vision", "made/vision_q.onnx"], "not both"),
        (["made/vision_q.onnx", "--like", "reference"], "name both"),
        (["reference", "--preprocess", "near.yaml"], "goes with ONNX files only"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(place, words, expected, capsys):
    assert gate(*words) == 2
    assert expected in capsys.readouterr().err


# ---------------------------------------------------------------- files that lie, through the command


def outside(model):
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../secret.bin")


def greedy(model):
    """A few bytes that ask for 256 GB when the model runs."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 18, 1 << 18])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.output.append(helper.make_tensor_value_info("zeros", TensorProto.FLOAT, None))


@pytest.mark.parametrize(("change", "code"), [(outside, 6), (greedy, 7)], ids=["outside", "greedy"])
def test_a_file_that_lies_is_refused(place, change, code, capsys):
    (place / "secret.bin").write_bytes(bytes(1 << 16))
    model = onnx.load("reference/onnx/vision_model.onnx")
    change(model)
    (place / "made" / "vision_q.onnx").write_bytes(model.SerializeToString())
    assert gate("made", "--calibration", "none") == code, capsys.readouterr()


@pytest.mark.parametrize("how", ["symlink", "hard link", "empty", "missing"])
def test_a_file_that_is_none_is_refused(place, how):
    file = place / "made" / "vision_q.onnx"
    file.rename(place / "elsewhere.onnx")
    if how == "symlink":
        file.symlink_to(place / "elsewhere.onnx")
    elif how == "hard link":
        file.hardlink_to(place / "elsewhere.onnx")
    elif how == "empty":
        file.touch()
    expected = {"symlink": 6, "hard link": 6, "empty": 2, "missing": 2}[how]
    assert gate("made", "--calibration", "none") == expected
