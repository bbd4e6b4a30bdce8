"""The lint: every rule catches what was planted for it, our files are clean, other tools' asymmetric ones are not."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_towers
from onnx import TensorProto, helper, numpy_helper

from compress.cli.main import main
from compress.core import names
from compress.core.errors import UsageError
from compress.models.graph import initializers
from compress.models.treatment import StaticInt8
from compress.steps.quantize._rounding import int8_per_channel
from compress.targets import tensorrt
from compress.targets.graph import standard
from compress.targets.graph.emitter import weight_matrix
from compress.targets.lint import check
from compress.targets.lint.check import catalogue, findings
from compress.targets.lint.view import View

SHAPES = {"pixel_values": {"min": [1, 3, 8, 8], "opt": [8, 3, 8, 8], "max": [32, 3, 8, 8]}}


@pytest.fixture
def ours(tiny_encoder):
    """The vision tower in static int8, as the target writes it."""
    tower = tiny_encoder.towers["vision"]
    for site in tower.sites:
        tower.treatments[site.name] = StaticInt8(*int8_per_channel(weight_matrix(tower, site)), 0.02)
    return standard.emit(tower)


def node(model, op, at=0):
    return [each for each in model.graph.node if each.op_type == op][at]


def set_tensor(model, name, values):
    initializers(model)[name].CopyFrom(numpy_helper.from_array(values, name))


def asymmetric(model):
    set_tensor(model, node(model, "QuantizeLinear").input[2], np.int8(3))


def unsigned(model):
    set_tensor(model, node(model, "QuantizeLinear").input[2], np.uint8(0))


def contrib(model):
    node(model, "Gelu").domain = "com.microsoft"


def old_opset(model):
    model.opset_import[0].version = 12


def norm_in_parts(model):
    at = next(at for at, each in enumerate(model.graph.node) if each.op_type == "LayerNormalization")
    given, (made,) = model.graph.node[at].input[0], model.graph.node[at].output
    del model.graph.node[at]
    made_of = [
        helper.make_node("ReduceMean", [given], ["p0"], name="p0"),
        helper.make_node("Sub", [given, "p0"], ["p1"], name="p1"),
        helper.make_node("Pow", ["p1", "p_two"], ["p2"], name="p2"),
        helper.make_node("ReduceMean", ["p2"], ["p3"], name="p3"),
        helper.make_node("Sqrt", ["p3"], ["p4"], name="p4"),
        helper.make_node("Div", ["p1", "p4"], [made], name="p5"),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "p_two"))
    for place, each in enumerate(made_of):
        model.graph.node.insert(at + place, each)


def norm_in_half(model):
    node(model, "LayerNormalization").attribute.append(helper.make_attribute("stash_type", TensorProto.FLOAT16))


def weight_of_one_scale(model):
    held = next(each for each in model.graph.node if each.op_type == "DequantizeLinear" and len(each.input) == 2)
    set_tensor(model, held.input[1], np.float32(0.01))


def activation_of_many_scales(model):
    set_tensor(model, node(model, "QuantizeLinear").input[1], np.full(40, 0.1, np.float32))


def scales_along_the_inputs(model):
    for held in model.graph.node:
        if held.op_type == "DequantizeLinear" and len(held.input) == 2:
            size = initializers(model)[held.input[0]].dims[0]
            set_tensor(model, held.input[1], np.full(size, 0.1, np.float32))
            held.attribute[0].i = 0
            return


def small_int4_blocks(model):
    held = next(each for each in model.graph.node if each.op_type == "DequantizeLinear" and len(each.input) == 2)
    rows, columns = initializers(model)[held.input[0]].dims
    codes = helper.make_tensor(held.input[0], TensorProto.INT4, [rows, columns], [0] * (rows * columns))
    initializers(model)[held.input[0]].CopyFrom(codes)
    set_tensor(model, held.input[1], np.ones((-(-rows // 16), columns), np.float32))
    del held.attribute[:]
    held.attribute.extend([helper.make_attribute("axis", 0), helper.make_attribute("block_size", 16)])
    model.opset_import[0].version = 21


def integer_product(model):
    node(model, "MatMul").op_type = "MatMulInteger"


def dynamic(model):
    model.graph.node.insert(
        0, helper.make_node("DynamicQuantizeLinear", ["pixel_values"], ["d0", "d1", "d2"], name="d")
    )


def lone_quantize(model):
    q = node(model, "QuantizeLinear")
    model.graph.node.append(helper.make_node("QuantizeLinear", list(q.input), ["lone"], name="lone"))


def twice(model):
    dq = next(each for each in model.graph.node if each.op_type == "DequantizeLinear" and len(each.input) == 3)
    ends = list(dq.input[1:])
    model.graph.node.append(helper.make_node("QuantizeLinear", [dq.output[0], *ends], ["t0"], name="t0"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["t0", *ends], ["t1"], name="t1"))
    model.graph.node.append(helper.make_node("Relu", ["t1"], ["t2"], name="t2"))


def pair(model, value, name):
    """Q/DQ behind a value, with the ends of another."""
    ends = list(node(model, "QuantizeLinear").input[1:])
    at = next(at for at, each in enumerate(model.graph.node) if value in each.output)
    q = helper.make_node("QuantizeLinear", [value, *ends], [f"{name}_q"], name=f"{name}_q")
    model.graph.node.insert(at + 1, q)
    dq = helper.make_node("DequantizeLinear", [f"{name}_q", *ends], [name], name=name)
    model.graph.node.insert(at + 2, dq)
    return name


def in_front_of(op) -> Callable[[onnx.ModelProto], None]:
    def plant(model):
        reader = node(model, op)
        reader.input[0] = pair(model, reader.input[0], "planted")

    return plant


def one_sided_residual(model):
    reader = next(each for each in model.graph.node if "after_attention" in each.output)
    reader.input[0] = pair(model, reader.input[0], "planted")


def mixed_types(model):
    at = next(at for at, each in enumerate(model.graph.node) if "after_attention" in each.output)
    value = model.graph.node[at].input[0]
    model.graph.node[at].input[0] = "cast"
    cast = helper.make_node("Cast", [value], ["cast"], name="cast", to=TensorProto.FLOAT16)
    model.graph.node.insert(at, cast)


PLANTED = [
    (asymmetric, "TRT001"), (unsigned, "TRT001"), (contrib, "TRT002"), (old_opset, "TRT003"),
    (norm_in_parts, "TRT004"), (norm_in_half, "TRT004"), (weight_of_one_scale, "TRT005"),
    (activation_of_many_scales, "TRT005"), (scales_along_the_inputs, "TRT005"), (small_int4_blocks, "TRT005"),
    (integer_product, "TRT006"), (dynamic, "TRT006"), (lone_quantize, "TRT007"), (twice, "TRT007"),
    (in_front_of("Softmax"), "TRT007"), (in_front_of("LayerNormalization"), "TRT007"), (one_sided_residual, "TRT007"),
    (mixed_types, "TRT009"),
]  # fmt: skip


def ids(model, shapes=SHAPES):
    return {each.rule for each in findings("tensorrt", View(model, shapes))}


def test_ours_is_clean(ours):
    assert not list(findings("tensorrt", View(ours, SHAPES)))


@pytest.mark.parametrize(("plant", "rule"), PLANTED, ids=lambda each: getattr(each, "__name__", each))
def test_what_is_planted_is_found(ours, plant, rule):
    plant(ours)
    found = list(findings("tensorrt", View(ours, SHAPES)))
    assert rule in {each.rule for each in found}
    assert all(each.where for each in found)
    known = {each.name for each in ours.graph.node} | {name for each in ours.graph.node for name in each.input}
    assert {each.where for each in found} <= known


@pytest.mark.parametrize(
    "shapes",
    [
        None, {}, {"pixel_values": {"min": [1, 3, 8, 8], "opt": [8, 3, 8, 8]}},
        {"pixel_values": {"min": [1, 3, 8], "opt": [8, 3, 8], "max": [9, 3, 8]}},
        {"pixel_values": {"min": [9, 3, 8, 8], "opt": [8, 3, 8, 8], "max": [32, 3, 8, 8]}},
        {"pixel_values": {"min": [0, 3, 8, 8], "opt": [8, 3, 8, 8], "max": [32, 3, 8, 8]}},
        {"pixel_values": {"min": [1, 3, 8, 8], "opt": [8, 3, 8, 9], "max": [32, 3, 8, 9]}},
    ],
    ids=str,
)  # fmt: skip
def test_profiles_that_cover_nothing(ours, shapes):
    assert ids(ours, shapes) == {"TRT008"}


def test_every_rule_has_a_planted_violation():
    rules = catalogue("tensorrt")
    assert [rule.id for rule in rules] == [f"TRT{at:03}" for at in range(1, len(rules) + 1)]
    assert {rule for _, rule in PLANTED} | {"TRT008"} == {rule.id for rule in rules}
    assert all(rule.what.endswith(".") and rule.why for rule in rules)


def test_the_page_has_the_table_of_the_rules():
    page = (Path(__file__).parents[3] / "docs" / "targets.md").read_text()
    rows = re.findall(r"^\| (TRT\d+) \| (.+) \| (.+) \|$", page, re.M)
    assert rows == [(rule.id, rule.what, rule.why) for rule in catalogue("tensorrt")]


def test_no_rules_for_a_target():
    with pytest.raises(UsageError, match="no rules"):
        catalogue("onnxruntime-cpu")
    assert check.linted() == ("tensorrt",)


class Calibration:
    """What onnxruntime's quantizer reads."""

    def __init__(self):
        self.feeds = tiny_towers.feeds("vision")

    def get_next(self):
        return next(self.feeds, None)


def test_files_of_onnxruntimes_own_tools_are_rejected(tmp_path):
    from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static

    source = tiny_towers.write(tmp_path)["vision"]
    quantize_dynamic(source, tmp_path / "dynamic.onnx")
    quantize_static(source, tmp_path / "static.onnx", Calibration(), quant_format=QuantFormat.QDQ)
    assert ids(onnx.load(tmp_path / "dynamic.onnx")) == {"TRT006"}
    static = onnx.load(tmp_path / "static.onnx")
    assert ids(static) == {"TRT001", "TRT005", "TRT007"}
    assert not [
        each for each in findings("tensorrt", View(static, SHAPES)) if "residual" in each.what
    ]  # a bias is none


def test_the_cpu_file_of_the_same_model_is_rejected(tiny_encoder):
    from compress.targets.graph import emitter

    tower = tiny_encoder.towers["vision"]
    site = next(site for site in tower.sites if site.role == "mlp.fc1")
    tower.treatments[site.name] = StaticInt8(*int8_per_channel(weight_matrix(tower, site)), 0.02)
    assert ids(emitter.emit(tower)) == {"TRT001"}
    step = names.load("compress.steps", "quantize.int4_rtn")
    tower.treatments[site.name] = step.in_blocks(weight_matrix(tower, site), 4, 32)
    assert ids(emitter.emit(tower)) == {"TRT002"}


def test_the_command(ours, tmp_path, tiny_encoder, capsys):
    tensorrt.export(tiny_encoder, tmp_path)  # the towers of `ours`, with their profile
    assert main(["lint", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 files, 0 findings\n"
    asymmetric(ours)
    broken = tmp_path / "onnx" / "vision_model_int8.onnx"
    broken.write_bytes(ours.SerializeToString())
    assert main(["lint", str(broken), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in told["findings"]] == ["TRT001", "TRT001"]  # Q and DQ
    assert main(["lint", str(tmp_path / "nothing.onnx")]) == 2
    (tmp_path / "text.onnx").write_text("no model")
    assert main(["lint", str(tmp_path / "text.onnx")]) == 2
    assert main(["lint", str(broken), "--target", "tensorr"]) == 2
    assert "did you mean tensorrt" in capsys.readouterr().err


def test_an_export_that_breaks_a_rule_ends_the_run(tiny_encoder, tmp_path):
    norm_in_parts(tiny_encoder.towers["vision"].graph)
    with pytest.raises(UsageError, match="TRT004 p3"):
        tensorrt.export(tiny_encoder, tmp_path)


def test_an_operator_that_there_is_not(ours):
    node(ours, "Softmax").op_type = "Softmix"
    assert "TRT002" in ids(ours)


def test_types_that_nobody_can_infer(ours, monkeypatch):
    def never(model):
        raise ValueError("contradiction")

    monkeypatch.setattr("compress.targets.lint.view.element_types", never)
    assert "TRT009" in ids(ours)
