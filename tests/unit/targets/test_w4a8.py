"""W4A8: the same weights with inputs rounded in blocks is another artifact, and no item hears of its neighbours."""

import numpy as np
import onnx
import pytest
import tiny_towers

from compress.core import names
from compress.core.errors import UsageError
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu, onnxruntime_cuda, tensorrt
from compress.targets.graph import census
from compress.targets.graph.session import open_session


def treated(encoder, use="quantize.int4_rtn", **options):
    method = names.load("compress.steps", use)
    return method.apply(encoder, method.Spec(**options), Context(lambda kind: tiny_towers.feeds(kind, 12)))


@pytest.mark.parametrize("use", ["quantize.int4_rtn", "quantize.gptq", "quantize.hqq"])
def test_name_census_and_report_tell_it_apart(tiny_encoder, tmp_path, use):
    report = treated(tiny_encoder, use, block=32, compute="int8")
    files = onnxruntime_cpu.export(tiny_encoder, tmp_path)
    assert files["vision"].name == "vision_model_q4a8.onnx"
    planned, found = onnxruntime_cpu.counts(tiny_encoder, files)["vision"]
    assert planned == found
    assert "int4 product in blocks of 32, inputs in int8" in planned
    assert {row.treatment for row in report.rows} == {"int4 in blocks of 32, inputs in int8"}


def test_a_file_that_computes_otherwise_than_planned_is_found_out(tiny_encoder):
    treated(tiny_encoder, compute="int8")
    tower = tiny_encoder.towers["vision"]
    planned = census.planned(tower)
    treated(tiny_encoder)
    assert census.found(onnxruntime_cpu.fused(tower), tower) != planned


def test_numbers_differ_from_float_inputs_and_stay_near(tiny_encoder):
    (feed,) = tiny_towers.feeds("vision", 1)
    made = []
    for compute in ("float", "int8"):
        treated(tiny_encoder, compute=compute)
        made.append(open_session(onnxruntime_cpu.fused(tiny_encoder.towers["vision"])).run(None, feed)[0])
    assert not np.array_equal(*made)
    assert (made[0] * made[1]).sum(1).min() > 0.99


@pytest.mark.parametrize("loud", [1.0, 1000.0], ids=["alike", "a loud neighbour"])
def test_an_item_does_not_depend_on_its_neighbours(tiny_encoder, loud):
    treated(tiny_encoder, compute="int8")
    session = open_session(onnxruntime_cpu.fused(tiny_encoder.towers["vision"]))
    images = np.random.default_rng(1).normal(size=(9, 3, tiny_towers.SIDE, tiny_towers.SIDE)).astype(np.float32)
    images[1:] *= loud
    alone = session.run(None, {"pixel_values": images[:1]})[0]
    together = session.run(None, {"pixel_values": images})[0][:1]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_tables_stay_as_they_are(tiny_encoder, tmp_path):
    treated(tiny_encoder, include=("embedding",), compute="int8", towers=("text",))
    assert onnxruntime_cpu.export(tiny_encoder, tmp_path)["text"].name == "text_model_q4.onnx"


@pytest.mark.parametrize("target", [tensorrt, onnxruntime_cuda], ids=lambda each: each.NAME)
def test_other_targets_refuse_it(tiny_encoder, tmp_path, target):
    treated(tiny_encoder, block=64, compute="int8")
    with pytest.raises(UsageError, match="compute: int8"):
        target.export(tiny_encoder, tmp_path)


def test_it_is_written_the_same_way_twice(tiny_encoder, tmp_path):
    treated(tiny_encoder, compute="int8")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        onnxruntime_cpu.export(tiny_encoder, tmp_path / name)
    first, second = (tmp_path / name / "onnx" / "vision_model_q4a8.onnx" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    level = {item.name: item.i for node in onnx.load(first).graph.node for item in node.attribute}["accuracy_level"]
    assert level == 4
