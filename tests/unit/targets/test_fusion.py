"""Fused products give what the products, dequantizations and additions gave that they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.models.tower import Site, Tower
from compress.models.treatment import StaticInt8
from compress.steps.quantize._rounding import in_blocks
from compress.targets.graph import census
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products

onnxruntime = pytest.importorskip("onnxruntime")
IN, OUT = 48, 20


def tower(readers: int = 1) -> Tower:
    """x W + b, with b read once by an addition, or the product read once more besides."""
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(IN, OUT)), "b": rng.normal(size=OUT)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="linear"),
        helper.make_node("Add", ["b", "product"], ["sum" if readers > 1 else "y"], name="add"),
    ]
    if readers > 1:
        nodes.append(helper.make_node("Mul", ["sum", "product"], ["y"], name="mul"))
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, IN])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, OUT])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    site = Site("linear", "mlp.fc1", 0, "MatMul", "linear", "w", (IN, OUT))
    return Tower("vision", model, (site,), ("x",), "y")


def treated(kind: str, readers: int = 1) -> Tower:
    made = tower(readers)
    weight = numpy_helper.to_array(made.graph.graph.initializer[0]).T
    if kind == "static":
        scales = (np.abs(weight).max(1) / 127).astype(np.float32)
        made.treatments["linear"] = StaticInt8(np.rint(weight / scales[:, None]).astype(np.int8), scales, 0.02)
    else:
        made.treatments["linear"] = in_blocks(weight, 4, 32, symmetric=kind == "blocks")
    return made


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        ("static", ["QuantizeLinear", "MatMulIntegerToFloat"]),
        ("blocks", ["MatMulNBits"]),
        ("blocks with zero points", ["MatMulNBits"]),
    ],
)
def test_the_bias_goes_into_the_product(kind, operators):
    made = treated(kind)
    plain, fused = emit(made), emit(made)
    fuse_products(fused)
    assert [node.op_type for node in fused.graph.node] == operators
    x = np.random.default_rng(1).normal(size=(2, 3, IN)).astype(np.float32)
    np.testing.assert_allclose(run(fused, x), run(plain, x), rtol=1e-5, atol=1e-5)
    assert census.found(fused, made) == census.planned(made)


def test_a_product_that_others_read_keeps_its_addition():
    made = treated("static", readers=2)
    plain, fused = emit(made), emit(made)
    fuse_products(fused)
    assert [node.op_type for node in fused.graph.node] == ["QuantizeLinear", "MatMulIntegerToFloat", "Add", "Mul"]
    x = np.random.default_rng(1).normal(size=(2, 3, IN)).astype(np.float32)
    np.testing.assert_allclose(run(fused, x), run(plain, x), rtol=1e-4, atol=1e-5)


def test_a_float_graph_stays_as_it_is():
    model = emit(tower())
    before = model.SerializeToString(deterministic=True)
    fuse_products(model)
    assert model.SerializeToString(deterministic=True) == before


def test_scales_and_biases_are_told_apart():
    fused = emit(treated("static"))
    fuse_products(fused)
    parts = census.parts(fused)
    assert parts["scales"] == 4 * (OUT + 1)
    assert parts["float weights"] == 4 * OUT
