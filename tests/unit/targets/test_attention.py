"""Attention as one operator: the same embeddings, only where the form is known, and read back as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.models.external_data import save
from compress.models.onnx_towers import load_onnx
from compress.models.tower import copied
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets.graph.attention import fuse_attention
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.masking import BELOW
from compress.targets.graph.session import open_session, run
from compress.targets.onnxruntime_cpu import fused

HEADS, WIDTH, TOKENS = 2, 8, 6
LOWEST = float(np.finfo(np.float32).min)
CAUSAL = np.triu(np.full((1, 1, TOKENS, TOKENS), LOWEST, np.float32), 1)


def inputs(tower, rows=5):
    """Images, or texts that end at places of their own."""
    rng = np.random.default_rng(0)
    if tower.kind == "vision":
        return {tower.inputs[0]: rng.normal(size=(rows, 3, 64, 64)).astype(np.float32)}
    ids, mask = rng.integers(5, 100, (rows, 24)), np.ones((rows, 24), np.int64)
    for row, end in enumerate(rng.integers(1, 24, rows)):
        ids[row, end], mask[row, end + 1 :] = 3, 0
    return dict(zip(tower.inputs, (ids, mask), strict=True))


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("kind", ["vision", "text"])
@pytest.mark.parametrize(
    ("method", "options"),
    [(None, {}), (int8_static, {"float_above": None}), (int4_rtn, {"block": 32})],
    ids=["float", "int8", "int4"],
)
def test_embeddings_are_the_same(pocket_clip, kind, method, options):
    made = copied(pocket_clip, (kind,))
    if method is not None:
        spec = method.Spec.model_validate({"towers": (kind,), **options})
        method.apply(made, spec, Context(lambda each: iter([inputs(made.towers[each])])))
    tower = made.towers[kind]
    plain = emit(tower)
    fuse_products(plain)
    whole = onnx.ModelProto()
    whole.CopyFrom(plain)
    fuse_attention(whole)
    onnx.checker.check_model(whole, full_check=True)
    assert operators(whole)["Attention"] == operators(plain)["Softmax"] > 0
    assert operators(whole)["Softmax"] == 0
    before, after = (run(open_session(each), [tower.output], inputs(tower))[0] for each in (plain, whole))
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_a_file_is_read_as_it_was_and_written_the_same(pocket_clip, kind, tmp_path):
    tower = pocket_clip.towers[kind]
    first = fused(tower)
    save(first, tmp_path / "first.onnx")
    again = load_onnx({kind: tmp_path / "first.onnx"}, {}).towers[kind]
    assert "Attention" not in operators(again.graph)
    assert [(site.role, site.shape, site.layer) for site in again.sites] == [
        (site.role, site.shape, site.layer) for site in tower.sites
    ]
    second = fused(again)
    assert operators(second)["Attention"] == operators(first)["Attention"]
    before, after = (run(open_session(each), [tower.output], inputs(tower))[0] for each in (first, second))
    np.testing.assert_allclose(after, before, atol=1e-6)


def attention(mask=None, cut=(0, 0, HEADS, -1), joined=(0, 0, WIDTH), opset=20, scale=0.5):
    """Attention of x with itself: the mask is a constant, or an input where it is "given"."""
    rng = np.random.default_rng(1)
    fixed = {name: rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) for name in ("wq", "wk", "wv", "wo")}
    fixed |= {"cut": np.array(cut, np.int64), "joined": np.array(joined, np.int64), "scale": np.float32(scale)}
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("MatMul", ["x", f"w{name}"], [name], name=name),
            helper.make_node("Reshape", [name, "cut"], [f"{name}_cut"], name=f"{name}_cut"),
            helper.make_node("Transpose", [f"{name}_cut"], [f"{name}_heads"], name=f"{name}_heads", perm=perm),
        ]
    nodes += [
        helper.make_node("MatMul", ["q_heads", "k_heads"], ["products"], name="products"),
        helper.make_node("Mul", ["products", "scale"], ["logits"], name="logits"),
    ]
    if mask is not None:
        nodes.append(helper.make_node("Add", ["logits", "mask"], ["masked"], name="masked"))
        fixed |= {} if isinstance(mask, str) else {"mask": mask}
    nodes += [
        helper.make_node("Softmax", [nodes[-1].output[0]], ["weights"], name="weights", axis=-1),
        helper.make_node("MatMul", ["weights", "v_heads"], ["mixed"], name="mixed"),
        helper.make_node("Transpose", ["mixed"], ["turned"], name="turned", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "joined"], ["together"], name="together"),
        helper.make_node("MatMul", ["together", "wo"], ["y"], name="y"),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", TOKENS, WIDTH])]
    if isinstance(mask, str):
        given.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, None, TOKENS]))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(joined))
    graph = helper.make_graph(nodes, "g", given, [out], [numpy_helper.from_array(v, k) for k, v in fixed.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def both(model, **feed):
    """What a graph says before and after; and how many attentions were rewritten."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    fuse_attention(whole)
    onnx.checker.check_model(whole, full_check=True)
    before, after = (open_session(each).run(None, feed)[0] for each in (model, whole))
    return before, after, operators(whole)["Attention"]


def samples(scale=1.0):
    return scale * np.random.default_rng(2).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("hidden", [LOWEST, -np.inf, -1e4])
def test_what_is_masked_is_not_seen(hidden, scale):
    """Logits are some 40 apart in the widest case."""
    mask = np.where(CAUSAL < 0, np.float32(hidden), np.float32(0))
    before, after, count = both(attention(mask), x=samples(scale))
    assert count == 1
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_padding_is_masked_for_all_queries_and_an_empty_text_stays_as_it_was():
    mask = np.zeros((3, 1, 1, TOKENS), np.float32)
    mask[1, ..., 4:], mask[2] = LOWEST, LOWEST
    before, after, count = both(attention("given"), x=samples(), mask=mask)
    assert count == 1
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_a_bias_of_positions_is_no_mask():
    bias = np.linspace(-200, 200, TOKENS * TOKENS, dtype=np.float32).reshape(TOKENS, TOKENS)
    model = attention(bias)
    before, after, count = both(model, x=samples())
    fuse_attention(model)
    assert count == 1
    assert "Max" not in operators(model)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_another_shape_behind_the_heads_is_kept():
    before, after, count = both(attention(joined=(-1, WIDTH)), x=samples())
    assert (before.shape, count) == ((3 * TOKENS, WIDTH), 1)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_subnormal_numbers_are_gone():
    """The reason for cutting masks: weights of masked keys are normal numbers, or nothing."""
    model = attention(CAUSAL)
    fuse_attention(model)
    mask = next(node for node in model.graph.node if node.op_type == "Attention").input[3]
    held = open_session(_with(model, mask)).run([mask], {"x": samples()})[0]
    assert held.min() == BELOW


def _with(model, name):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made


def renamed(model, name, change):
    change(next(node for node in model.graph.node if node.name == name))
    return model


@pytest.mark.parametrize(
    "model",
    [
        attention(cut=(-1, TOKENS // 2, HEADS, WIDTH // HEADS), joined=(-1, TOKENS, WIDTH)),
        attention(opset=17),
        renamed(attention(), "weights", lambda node: node.attribute[0].__setattr__("i", 2)),
        renamed(attention(), "turned", lambda node: node.attribute[0].ints.__setitem__(slice(None), [0, 3, 1, 2])),
    ],
    ids=["windows of tokens", "an old opset", "over queries", "turned otherwise"],
)
def test_what_is_not_known_stays_as_it_is(model):
    before = model.SerializeToString(deterministic=True)
    fuse_attention(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_value_that_others_read_stays():
    model = attention()
    model.graph.output.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, None))
    fuse_attention(model)
    assert operators(model)["Attention"] == 0
