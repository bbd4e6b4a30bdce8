"""`Attention` is spelled out to the same numbers, and left alone where it says more than a scale and a mask."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.models.attention_operator import spell_out
from compress.models.shape_inference import Shapes
from compress.targets.graph.session import open_session

WIDTH, TOKENS = 8, 5


def model(mask=None, kind=TensorProto.FLOAT, values=WIDTH, **options):
    """One attention of x with itself; `values` channels of each token."""
    rng = np.random.default_rng(0)
    widths = {"wq": WIDTH, "wk": WIDTH, "wv": values}
    fixed = {name: rng.normal(size=(WIDTH, width)).astype(np.float32) for name, width in widths.items()}
    nodes = [helper.make_node("MatMul", ["x", f"w{each}"], [each], name=each) for each in "qkv"]
    inputs = ["q", "k", "v", *(["mask"] if mask else [])]
    told = {"q_num_heads": 2, "kv_num_heads": 2, **options}
    nodes.append(helper.make_node("Attention", inputs, ["y"], name="attention", **told))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])]
    given += [helper.make_tensor_value_info("mask", kind, mask)] if mask else []
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None])
    graph = helper.make_graph(nodes, "g", given, [out], [numpy_helper.from_array(v, k) for k, v in fixed.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@pytest.mark.parametrize(
    ("options", "mask"),
    [({}, None), ({"scale": 0.3}, None), ({"values": 12}, (TOKENS, TOKENS)), ({}, ("batch", 1, TOKENS, TOKENS))],
    ids=["its own scale", "a scale", "wide values and a mask", "a mask for each sample"],
)
def test_the_numbers_stay(options, mask):
    rng = np.random.default_rng(1)
    before = model(mask, **options)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    spell_out(after)
    onnx.checker.check_model(after, full_check=True)
    assert not [node for node in after.graph.node if node.op_type == "Attention"]
    feed = {"x": rng.normal(size=(3, TOKENS, WIDTH)).astype(np.float32)}
    if mask is not None:
        feed["mask"] = rng.normal(size=[3 if each == "batch" else each for each in mask]).astype(np.float32)
    old, new = (open_session(each).run(None, feed)[0] for each in (before, after))
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        model(kv_num_heads=1, q_num_heads=2),
        model(is_causal=1),
        model(softcap=2.0),
        model((TOKENS, TOKENS), TensorProto.BOOL),
    ],
    ids=["fewer keys than queries", "causal", "capped", "a mask of booleans"],
)
def test_what_says_more_stays(given):
    before = given.SerializeToString(deterministic=True)
    spell_out(given)
    assert given.SerializeToString(deterministic=True) == before


def shapes(*nodes, **fixed):
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", 6])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = [helper.make_node(op, inputs, [output], **options) for op, inputs, output, options in nodes]
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in fixed.items()]
    return Shapes(helper.make_model(helper.make_graph(made, "g", [given], [out], constants)))


def test_sizes_are_followed_through_a_reshape_that_is_computed():
    told = shapes(
        ("Shape", ["x"], "all", {"start": 0, "end": 2}),
        ("Concat", ["all", "rest"], "asked", {"axis": 0}),
        ("Reshape", ["x", "asked"], "y", {}),
        rest=[2, -1],
    )
    assert told.holds["asked"] == ["batch", "tokens", 2, -1]
    assert told.of["y"] == ["batch", "tokens", 2, 3]


def test_an_axis_that_is_not_named_is_what_is_left():
    told = shapes(
        ("Shape", ["x"], "second", {"start": 1, "end": 2}),
        ("Concat", ["rest", "second", "six"], "asked", {"axis": 0}),
        ("Reshape", ["x", "asked"], "y", {}),
        ("Concat", ["second", "second", "rest"], "no", {"axis": 0}),
        ("Reshape", ["x", "no"], "z", {}),
        rest=[-1], six=[6],
    )  # fmt: skip
    assert told.of["y"] == ["batch", "tokens", 6]
    assert told.of["z"] == ["tokens", "tokens", None]


def test_a_range_is_as_long_as_it_counts_to():
    nodes = (
        ("Shape", ["x"], "second", {"start": 1, "end": 2}),
        ("Squeeze", ["second"], "length", {}),
    )
    told = shapes(*nodes, ("Range", ["zero", "length", "one"], "y", {}), zero=0, one=1)
    assert told.of["y"] == ["tokens"]
    assert shapes(*nodes, ("Range", ["one", "length", "one"], "y", {}), one=1).of["y"] == [None]


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("Add", np.zeros(6, np.float32), ["batch", "tokens", 6]),
        ("Add", np.zeros((1, 4, 6), np.float32), ["batch", None, 6]),
        ("MatMul", np.zeros((6, 9), np.float32), ["batch", "tokens", 9]),
        ("Conv", np.zeros((9, 1, 1), np.float32), ["batch", 9, None]),
        ("Expand", np.array([1, 1, 6]), ["batch", "tokens", 6]),
        ("Reshape", np.array([0, 3, -1]), ["batch", 3, None]),
        ("Gather", np.array([[1, 0]]), [1, 2, "tokens", 6]),
        ("Unsqueeze", np.array([1]), ["batch", 1, "tokens", 6]),
        ("Unsqueeze", np.array([0, -1]), [1, "batch", "tokens", 6, 1]),
        ("ReduceMax", np.array([-1]), ["batch", "tokens", 1]),
        ("NonZero", np.array([1]), None),
    ],
)
def test_shapes_by_operator(op, other, expected):
    """Two sizes of which one is a name and one a number are not taken for the same."""
    inputs = ["x"] if op == "NonZero" else ["x", "other"]
    assert shapes((op, inputs, "y", {}), other=other).of.get("y") == expected
