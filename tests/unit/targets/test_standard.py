"""Files of the standard domain compute what the treatments say, with the scales of the CPU file and zero point 0."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_towers
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.data.session import Encoder
from compress.models.graph import clean, initializers, strip_nodes
from compress.models.sites import by_topology
from compress.models.tower import Tower
from compress.models.treatment import BlockWeights, Float16, StaticFloat8, StaticInt8
from compress.steps.quantize._float8 import decoded, float8_per_channel
from compress.steps.quantize._rounding import in_blocks, int8_per_channel, per_tensor
from compress.targets import onnxruntime_cpu, tensorrt
from compress.targets.graph import emitter, profile, standard, standard_census
from compress.targets.graph.emitter import weight_matrix

CLIP = 0.02


def product(columns=128, out=9, opset=20):
    """A tower of one matrix product."""
    weight = np.random.default_rng(0).normal(size=(columns, out)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", out])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    made = clean(model)
    strip_nodes(made)
    return Tower("vision", made, by_topology(made), ("x",), "y")


def treated(held, **options):
    tower = product(**options)
    (site,) = tower.sites
    tower.treatments[site.name] = held(weight_matrix(tower, site))
    return tower, tower.treatments[site.name]


def static(weight):
    return StaticInt8(*int8_per_channel(weight), CLIP)


def float8(weight):
    return StaticFloat8(*float8_per_channel(weight), CLIP)


def run(model, x):
    """As written: no fusion may put an integer kernel in the place of what the nodes say."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


X = np.random.default_rng(1).normal(size=(5, 128)).astype(np.float32)


def test_int8_is_the_simulation():
    tower, held = treated(static)
    rounded = np.clip(np.rint(X / np.float32(CLIP)), -128, 127) * np.float32(CLIP)
    expected = rounded @ (held.codes * held.scales[:, None]).T
    np.testing.assert_allclose(run(standard.emit(tower), X), expected, atol=1e-4)


def test_int8_has_the_scales_of_the_cpu_file():
    tower, _ = treated(static)
    ours, theirs = initializers(standard.emit(tower)), initializers(emitter.emit(tower))
    for name in ("w_q", "w_scales"):
        assert ours[name] == theirs[name]
    scale = {numpy_helper.to_array(held[name]).item() for held in (ours, theirs) for name in held if "_scale" in name
             and not name.startswith("w_")}  # fmt: skip
    assert scale == {np.float32(CLIP).item()}
    zeros = {kind: numpy_helper.to_array(next(held[name] for name in held if name.endswith("_zero")))
             for kind, held in (("tensorrt", ours), ("cpu", theirs))}  # fmt: skip
    assert (zeros["tensorrt"].dtype, zeros["tensorrt"].item()) == (np.int8, 0)
    assert (zeros["cpu"].dtype, zeros["cpu"].item()) == (np.uint8, 128)


@pytest.mark.parametrize(("zero", "steps"), [(0, 255), (8, 247), (200, 200), (255, 255), (128, 127)])
def test_a_zero_point_becomes_symmetric_steps_that_reach_as_far(zero, steps):
    """TensorRT knows a scale and nothing else: 127 steps cover the longer side of the range."""
    tower, held = treated(lambda weight: replace(static(weight), zero_point=zero))
    scale = np.float32(CLIP * steps / 127)
    rounded = np.clip(np.rint(X / scale), -128, 127) * scale
    expected = rounded @ (held.codes * held.scales[:, None]).T
    np.testing.assert_allclose(run(standard.emit(tower), X), expected, atol=1e-3)


def test_the_cpu_file_rounds_around_its_zero_point():
    tower, held = treated(lambda weight: replace(static(weight), zero_point=8))
    scale = np.float32(CLIP)
    rounded = (np.clip(np.rint(X / scale) + 8, 0, 255) - 8) * scale
    expected = rounded @ (held.codes * held.scales[:, None]).T
    np.testing.assert_allclose(run(emitter.emit(tower), X), expected, atol=1e-4)


def test_float8_is_the_simulation():
    tower, held = treated(float8)
    inside = np.clip(X / np.float32(CLIP), -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    expected = (inside * np.float32(CLIP)) @ (decoded(held.codes) * held.scales[:, None]).T
    model = standard.emit(tower)
    np.testing.assert_allclose(run(model, X), expected, atol=1e-4)
    assert initializers(model)["w_q"].data_type == TensorProto.FLOAT8E4M3FN


def test_float8_numbers_by_hand():
    codes, scales = float8_per_channel(np.array([[448.0, 1.0, 0.3, -2.0]], np.float32))
    assert scales.tolist() == [1.0]
    assert decoded(codes).tolist() == [[448.0, 1.0, 0.3125, -2.0]]  # 0.3 lies between 0.28125 and 0.3125
    assert codes.tolist() == [[0x7E, 0x38, 0x2A, 0xC0]]


@pytest.mark.parametrize("block", [64, 128])
def test_int4_is_the_dequantized_weight(block):
    tower, held = treated(lambda weight: in_blocks(weight, 4, block))
    model = standard.emit(tower)
    np.testing.assert_allclose(run(model, X), X @ held.dequantized().T, atol=1e-4)
    assert initializers(model)["w_q"].data_type == TensorProto.INT4
    assert [each.version for each in model.opset_import] == [21]
    assert model.ir_version >= 10
    assert len(initializers(model)["w_q"].raw_data) == held.codes.size // 2


def test_8_bit_weights_with_one_scale():
    tower, held = treated(lambda weight: per_tensor(weight, 8, 64))
    np.testing.assert_allclose(run(standard.emit(tower), X), X @ held.dequantized().T, atol=1e-4)


@pytest.mark.parametrize(
    ("held", "named"),
    [
        pytest.param(lambda weight: in_blocks(weight, 4, 64, symmetric=False), "symmetric: true", id="zero points"),
        pytest.param(lambda weight: in_blocks(weight, 4, 32), "block: 64 or 128", id="small blocks"),
        pytest.param(lambda weight: in_blocks(weight, 8, 64), "quantize.int8_static", id="8 bits in blocks"),
    ],
)
def test_what_tensorrt_does_not_take_is_refused_with_what_it_takes(held, named):
    tower, _ = treated(held)
    with pytest.raises(UsageError) as caught:
        standard.emit(tower)
    assert named in caught.value.hint
    assert caught.value.where == tower.sites[0].name


def test_a_width_that_blocks_do_not_divide_is_refused():
    tower, _ = treated(lambda weight: in_blocks(weight, 4, 64), columns=96)
    with pytest.raises(UsageError, match="96 inputs in blocks of 64"):
        standard.emit(tower)


def test_a_quantized_table_is_refused(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    site = next(site for site in tower.sites if site.op == "Gather")
    tower.treatments[site.name] = in_blocks(weight_matrix(tower, site), 8, 32)
    with pytest.raises(UsageError, match="Gather") as caught:
        standard.emit(tower)
    assert "quantize.fp16" in caught.value.hint


@pytest.mark.parametrize("opset", [17, 18])
def test_an_old_graph_is_not_relabelled(opset):
    tower, _ = treated(float8, opset=opset)
    with pytest.raises(UsageError, match=f"opset 19, the graph has {opset}"):
        standard.emit(tower)


def treat_all(encoder, fp16=False):
    """Static int8 in the blocks, half precision or nothing elsewhere."""
    for tower in encoder.towers.values():
        for site in tower.sites:
            weight = weight_matrix(tower, site)
            if site.role.startswith(("attn", "mlp")):
                tower.treatments[site.name] = static(weight)
            elif fp16:
                tower.treatments[site.name] = Float16(weight.astype(np.float16), np.array([], np.str_))


@pytest.mark.parametrize("fp16", [False, True])
def test_an_artifact(tiny_encoder, tmp_path, fp16):
    treat_all(tiny_encoder, fp16)
    files = tensorrt.export(tiny_encoder, tmp_path)  # which lints them
    for planned, found in tensorrt.counts(tiny_encoder, files).values():
        assert planned == found
        assert planned["int8 static product"] == "6"
    opened = Encoder(tmp_path)
    assert opened.runtime.proof == "linted-only"
    assert opened.runtime.target == "tensorrt"
    other = tmp_path / "cpu"
    other.mkdir()
    if not fp16:
        onnxruntime_cpu.export(tiny_encoder, other)
        assert Encoder(other).runtime.proof is None
        for kind in files:
            (feed,) = tiny_towers.feeds(kind, 1)
            ours, theirs = (getattr(each, kind).encode(feed) for each in (opened, Encoder(other)))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)  # same scales, whatever the zero point
    shapes = profile.read(tmp_path / "compress" / "profile_shapes.json")
    assert shapes == {
        "vision": {"pixel_values": {"min": [1, 3, 8, 8], "opt": [8, 3, 8, 8], "max": [32, 3, 8, 8]}},
        "text": {"input_ids": {"min": [1, 1], "opt": [8, 8], "max": [32, 8]}},
    }


def test_the_census_sees_a_float_weight_and_another_type():
    tower, _ = treated(static)
    planned = standard_census.planned(tower)
    assert planned == standard_census.found(standard.emit(tower), tower) == {"int8 static product": "1"}
    assert standard_census.found(tower.graph, tower) == {"float product": "1"}
    assert standard_census.found(emitter.emit(tower), tower) != planned
    four, _ = treated(lambda weight: in_blocks(weight, 4, 64))
    model = standard.emit(four)
    assert standard_census.found(model, four) == {"int4 product in blocks of 64": "1"} == standard_census.planned(four)
    scales = initializers(model)["w_scales"]
    scales.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scales)[:1], scales.name))
    assert "wrong size" in next(iter(standard_census.found(model, four)))


def test_the_same_weight_blocked_or_not_is_planned_apart():
    tower, held = treated(lambda weight: per_tensor(weight, 8, 64))
    assert isinstance(held, BlockWeights)
    assert standard_census.planned(tower) == standard_census.found(standard.emit(tower), tower)
