"""Half precision: islands of float where range needs them, casts between, the same function around them."""

import numpy as np
import onnx
import pytest
import tiny_towers
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.core import names
from compress.core.errors import UsageError
from compress.models.graph import initializers
from compress.steps.step import Context
from compress.targets import tensorrt
from compress.targets.graph import standard
from compress.targets.graph.half import halved
from compress.targets.graph.session import open_session
from compress.targets.graph.types import element_types

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def chain(scale=1.0):
    """x @ w, its square, the sum of that: the square may leave the range."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Mul", ["a", "a"], ["b"], name="square"),
        helper.make_node("Sqrt", ["b"], ["c"], name="root"),
        helper.make_node("Relu", ["c"], ["y"], name="last"),
    ]
    weight = (np.eye(4) * scale).astype(np.float32)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 4])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


X = np.array([[1000.0, 2.0, -3.0, 0.5]], np.float32)


def run(model, x=X):
    """In numpy's half precision: ONNX Runtime's CPU kernels compute most of it in float, and would lose nothing."""
    onnx.checker.check_model(model, full_check=True)
    with np.errstate(over="ignore"):
        return ReferenceEvaluator(model).run(None, {"x": x})[0]


def computed_in(model):
    """Node -> element type of what it makes, casts left out."""
    types = element_types(model)
    return {node.name: types[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}


def test_everything_in_half_but_inputs_and_outputs():
    model = halved(chain(), frozenset(), frozenset())
    assert set(computed_in(model).values()) == {HALF}
    assert [node.op_type for node in model.graph.node][:1] == ["Cast"]
    assert model.graph.input[0].type.tensor_type.elem_type == model.graph.output[0].type.tensor_type.elem_type == FLOAT
    assert run(model).dtype == np.float32


def test_a_wide_value_makes_an_island():
    lost, kept = (run(halved(chain(), frozenset(), wide)) for wide in (frozenset(), frozenset({"b"})))
    assert np.isinf(lost[0, 0])  # a million is too much
    np.testing.assert_allclose(kept, np.abs(X), rtol=1e-3)
    told = computed_in(halved(chain(), frozenset(), frozenset({"b"})))
    assert told == {"product": HALF, "square": FLOAT, "root": FLOAT, "last": HALF}


def test_a_weight_out_of_range_keeps_its_product_in_float():
    told = computed_in(halved(chain(1e5), frozenset(), frozenset()))
    assert told["product"] == FLOAT
    assert told["square"] == HALF


def test_named_nodes_stay():
    assert computed_in(halved(chain(), frozenset({"root"}), frozenset()))["root"] == FLOAT


def test_branches_are_refused():
    model = chain()
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["i"])], "b", [], [
        helper.make_tensor_value_info("i", FLOAT, None)])  # fmt: skip
    model.graph.node.append(helper.make_node("If", ["t"], ["z"], then_branch=inner, else_branch=inner, name="if"))
    with pytest.raises(UsageError, match="branches"):
        halved(model, frozenset(), frozenset())


def applied(encoder, use, towers=("vision",), **options):
    method = names.load("compress.steps", use)
    method.apply(encoder, method.Spec.model_validate({"towers": towers, **options}), Context(tiny_towers.feeds))


def test_norms_are_whole_sums_are_float_and_layers_left_out_are_islands(tiny_encoder):
    applied(tiny_encoder, "quantize.fp16", exclude=("vision:mlp.fc2",))
    tower = tiny_encoder.towers["vision"]
    model = standard.emit(tower)
    types = element_types(model)
    by_op = {(node.op_type, types[node.output[0]]) for node in model.graph.node if types.get(node.output[0])}
    assert ("LayerNormalization", HALF) in by_op
    assert ("LayerNormalization", FLOAT) not in by_op
    assert ("ReduceL2", FLOAT) in by_op
    assert ("Softmax", HALF) in by_op
    fc2 = next(site for site in tower.sites if site.role == "mlp.fc2")
    assert initializers(model)[fc2.weight].data_type == FLOAT
    assert next(types[node.output[0]] for node in model.graph.node if node.name == fc2.node) == FLOAT


def test_calibration_finds_the_wide_values(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    bias = initializers(tower.graph)["fc1.bias"]
    bias.CopyFrom(numpy_helper.from_array(np.full(72, 50_000, np.float32), "fc1.bias"))
    applied(tiny_encoder, "quantize.fp16")
    held = next(iter(tower.treatments.values()))
    assert {"fc1", "inner"} <= set(held.wide.tolist())  # 50,000 is more than half of 65,504
    assert not set(held.wide.tolist()) & {"norm1", "scores", "k_turned"}
    types = element_types(standard.emit(tower))
    assert types["fc1"] == types["inner"] == FLOAT
    assert types["norm2"] == HALF


def test_q_dq_and_their_product_are_of_one_type(tiny_encoder, tmp_path):
    applied(tiny_encoder, "quantize.fp16")
    applied(tiny_encoder, "quantize.int8_static", range="mse")
    tower = tiny_encoder.towers["vision"]
    site = next(site for site in tower.sites if site.role == "mlp.fc1")
    tower.treatments[site.name].scales[:] = 1e-6  # no digit of these would survive
    model = standard.emit(tower)
    types, tensors = element_types(model), initializers(model)
    kinds = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name.endswith("product_MatMul"):
            kinds[node.output[0]] = {types[name] for name in (*node.input, *node.output)}
    assert kinds["fc1.product"] == {FLOAT}
    assert kinds["fc2.product"] == {HALF}
    assert tensors[f"{site.weight}_scales"].data_type == FLOAT
    assert tensorrt.export(tiny_encoder, tmp_path)  # linted: strong typing included


def test_a_tower_in_half_precision_stays_near(tiny_encoder):
    tower, (feed,) = tiny_encoder.towers["text"], tiny_towers.feeds("text", 1)
    (expected,) = open_session(tower.graph).run(None, feed)
    applied(tiny_encoder, "quantize.fp16", ("text",))
    model = standard.emit(tower)
    for (got,) in (ReferenceEvaluator(model).run(None, feed), open_session(model).run(None, feed)):
        assert got.dtype == np.float32
        assert (got * expected).sum(1).min() > 0.9999
        assert (got != expected).any()
