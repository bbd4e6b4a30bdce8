"""QuickGelu between quantized products: no factor is left in the graph, and the embeddings are the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_clip
from graphs import rewritten, shown
from onnx import helper, numpy_helper

from compress.models.loading import load
from compress.models.tower import copied
from compress.recipe.sources import NamedModel
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets.graph.activation import fold_factors
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.session import open_session, optimized, run

TOKENS = 24


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    made = load(NamedModel(source=str(tiny_clip.save(tmp_path_factory.mktemp("model") / "clip"))), offline=True)
    rng = np.random.default_rng(3)
    for each in made.towers["text"].graph.graph.initializer:
        if each.name.endswith("fc1.bias"):  # zeros, in a model that was never trained
            each.CopyFrom(numpy_helper.from_array(rng.normal(size=each.dims).astype(np.float32), each.name))
    return made


def texts(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 90, (rows, TOKENS))
    ids[np.arange(rows), rng.integers(2, TOKENS, rows)] = 3
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def products(encoder, method, **options):
    made = copied(encoder, ("text",))
    spec = method.Spec.model_validate({"towers": ("text",), **options})
    method.apply(made, spec, Context(lambda _: iter([texts(seed=1)])))
    graph = emit(made.towers["text"])
    fuse_products(graph)
    return graph


def folded(plain):
    made = rewritten(plain, fold_factors)
    onnx.checker.check_model(made, full_check=True)
    return made


def factors(model, tmp_path):
    """Those of the operators that ONNX Runtime makes of a graph."""
    onnx.save(model, tmp_path / "model.onnx")
    nodes = optimized(tmp_path / "model.onnx", tmp_path).graph.node
    return [helper.get_node_attr_value(node, "alpha") for node in nodes if node.op_type == "QuickGelu"]


@pytest.mark.parametrize(
    ("method", "options", "near"),
    [
        (int8_static, {"float_above": None}, 2e-3),  # a code may fall to the other side of a half
        (int4_rtn, {"block": 32}, 1e-6),
        (int4_rtn, {"block": 32, "compute": "int8"}, 1e-3),
    ],
    ids=["int8", "int4", "int4-int8"],
)
def test_embeddings_are_the_same_without_a_factor(encoder, tmp_path, method, options, near):
    plain = products(encoder, method, **options)
    made = folded(plain)
    before, after = (run(open_session(each), ["text_embeds"], texts())[0] for each in (plain, made))
    np.testing.assert_allclose(after, before, atol=near)
    assert factors(plain, tmp_path) == pytest.approx([1.702] * 2)
    assert factors(made, tmp_path) == [1.0] * 2
    assert len(made.graph.node) == len(plain.graph.node) - 2
    assert folded(made) == made


def test_codes_are_the_same(encoder):
    """What fc2 reads in 8 bits, but for a code that rounding moved by one."""
    plain = products(encoder, int8_static, float_above=None)
    code = next(
        node.output[0] for node in plain.graph.node if node.op_type == "QuantizeLinear" and "mul" in node.input[0]
    )
    made = folded(plain)
    before, after = (run(open_session(shown(each, code)), [code], texts())[0] for each in (plain, made))
    moved = np.abs(before.astype(int) - after.astype(int))
    assert moved.max() <= 1
    assert np.mean(moved > 0) < 1e-3
    assert len(np.unique(before)) > 50


def read_twice(model):
    weighed = sigmoid(model).output[0]
    model.graph.node.append(helper.make_node("Identity", [weighed], ["twice"], name="twice"))
    model.graph.output.append(helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, [None, None, None]))


def result_read_twice(model):
    result = next(node.output[0] for node in model.graph.node if sigmoid(model).output[0] in node.input)
    model.graph.node.append(helper.make_node("Identity", [result], ["twice"], name="twice"))
    model.graph.output.append(helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, [None, None, None]))


def returned(model):
    value = next(node.input[0] for node in model.graph.node if sigmoid(model).input[0] in node.output)
    model.graph.output.append(helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [None, None, None]))


def by_channel(model):
    larger = next(node for node in model.graph.node if sigmoid(model).input[0] in node.output)
    width = 2 * tiny_clip.WIDTH
    model.graph.initializer.append(numpy_helper.from_array(np.linspace(1, 2, width, dtype=np.float32), "factors"))
    larger.input[1] = "factors"


def sigmoid(model):
    return next(node for node in model.graph.node if node.op_type == "Sigmoid")


@pytest.mark.parametrize("change", [read_twice, result_read_twice, returned, by_channel])
def test_an_activation_of_another_form_stays_as_it_is(encoder, change):
    plain = products(encoder, int8_static, float_above=None)
    change(plain)
    names = [each.name for each in plain.graph.output]
    made = folded(plain)
    assert (
        sum(node.op_type == "Mul" for node in made.graph.node)
        == sum(node.op_type == "Mul" for node in plain.graph.node) - 1
    ), "the other block's alone"
    for before, after in zip(*(run(open_session(each), names, texts()) for each in (plain, made)), strict=True):
        np.testing.assert_allclose(after, before, atol=2e-3)


@pytest.mark.parametrize("roles", [("mlp.fc1",), ("mlp.fc2",)], ids=["fc1", "fc2"])
def test_products_in_float_keep_the_factor(encoder, roles):
    plain = products(encoder, int8_static, float_above=None, include=roles)
    assert folded(plain) == plain
    assert folded(emit(encoder.towers["text"])) == emit(encoder.towers["text"])
