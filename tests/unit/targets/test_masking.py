"""Lifting masked logits changes no probability that single precision can tell apart, and only where a mask is added."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.targets.graph.masking import BELOW, lift_masked
from compress.targets.graph.session import open_session

SIZE = 6
CAUSAL = np.triu(np.full((SIZE, SIZE), np.finfo(np.float32).min, np.float32), 1)


def attention(mask, opset: int = 20, axis: int = -1) -> onnx.ModelProto:
    """Softmax(x w + mask); the mask is a constant, or an input where it is None."""
    weights = {"w": np.eye(SIZE, dtype=np.float32)} | ({} if mask is None else {"mask": mask})
    given = ["x"] if mask is not None else ["x", "mask"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], name="scores"),
        helper.make_node("Add", ["scores", "mask"], ["logits"], name="logits"),
        helper.make_node("Softmax", ["logits"], ["y"], name="softmax", axis=axis),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE, SIZE]) for name in given],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, **feed) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return open_session(model).run(None, feed)[0]


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_probabilities_stay_and_none_is_subnormal(opset, scale):
    x = scale * np.random.default_rng(0).normal(size=(3, SIZE, SIZE)).astype(np.float32)
    plain, lifted = attention(CAUSAL, opset), attention(CAUSAL, opset)
    lift_masked(lifted)
    before, after = run(plain, x=x), run(lifted, x=x)
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=2 * np.exp(BELOW))
    assert after.min() >= np.finfo(np.float32).tiny
    assert before.min() < np.finfo(np.float32).tiny, "else there would be nothing to lift"


@pytest.mark.parametrize("hidden", [-np.inf, np.finfo(np.float32).min, -1e4])
def test_a_row_without_a_visible_token_is_as_it_was(hidden):
    mask = np.zeros((2, SIZE, SIZE), np.float32)
    mask[0] = hidden
    x = np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)
    plain, lifted = attention(None), attention(None)
    lift_masked(lifted)
    assert [node.op_type for node in lifted.graph.node].count("ReduceMax") == 1
    np.testing.assert_allclose(run(lifted, x=x, mask=mask), run(plain, x=x, mask=mask), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    "model",
    [attention(np.linspace(-20, 20, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)), attention(CAUSAL, axis=1)],
    ids=["a bias of positions", "over another axis"],
)
def test_what_is_no_mask_of_a_row_stays_as_it_is(model):
    before = model.SerializeToString(deterministic=True)
    lift_masked(model)
    assert model.SerializeToString(deterministic=True) == before
