"""Cleaning a graph: nothing of where and how it was made is left, and it computes what it did before."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.graph import check_opset, clean, drop_unused, initializers, parameter_count, strip_nodes

SECRET = "/home/someone/project/train.py"


def values(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def branch(name, weight):
    """A graph that hands on a weight of the graph around it, added to one of its own."""
    own = numpy_helper.from_array(np.ones(3, np.float32), f"{name}_own")
    own.doc_string = SECRET
    node = helper.make_node("Add", [weight, f"{name}_own"], [f"{name}_out"], doc_string=SECRET)
    node.metadata_props.add(key="source", value=SECRET)
    graph = helper.make_graph([node], name, [], [values(f"{name}_out", [3])], [own], SECRET)
    graph.value_info.append(values(SECRET, [1]))
    return graph


def told_on():
    """A model that says where it comes from in every field that can say so."""
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"], doc_string=SECRET)],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    function.doc_string = SECRET
    constant = numpy_helper.from_array(np.array([1, 2, 3], np.float32))
    constant.doc_string = SECRET
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Gemm", ["x", "w", "bias"], ["g"], transB=1, name="n"),
        helper.make_node("Twice", ["g"], ["t"], domain="local", name="n"),
        helper.make_node("If", ["flag"], ["i"], then_branch=branch("yes", "w1"), else_branch=branch("no", "w2")),
        helper.make_node("Add", ["t", "c"], ["s"]),
        helper.make_node("Add", ["s", "i"], ["y"]),
        helper.make_node("Relu", ["x"], ["nobody_reads_this"]),
    ]
    held = {name: np.full(3, at, np.float32) for at, name in enumerate(("bias", "w1", "w2", "unused"))}
    held["w"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    held["flag"] = np.array(True)
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, SECRET, [values("x", ["n", 4])], [values("y", ["n", 3])], tensors, SECRET),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("local", 1)], functions=[function],
    )  # fmt: skip
    model.ir_version = 10
    model.doc_string = model.domain = SECRET
    graph = model.graph
    graph.value_info.append(values(SECRET, [7]))
    for holder in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"{SECRET}, line 3, in forward: x = f(x)")
    for holder in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.doc_string = SECRET
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = SECRET
    graph.quantization_annotation.add(tensor_name=SECRET)
    onnx.checker.check_model(model)
    return model


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_nothing_is_told_and_the_same_is_computed():
    before = told_on()
    kept = before.SerializeToString()
    after = clean(before)
    strip_nodes(after)
    assert before.SerializeToString() == kept, "the model that was given has to stay as it is"
    raw = after.SerializeToString()
    for trace in (b"someone", b"train.py", b"stack_trace", b"forward"):
        assert trace in kept
        assert trace not in raw
    assert not after.graph.value_info
    assert not after.functions
    onnx.checker.check_model(after)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    before.graph.node[2].name = "m"  # ONNX Runtime takes no two nodes of one name; cleaning names each
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-6)


def test_gemm_is_written_as_matmul_and_nothing_unread_is_left():
    after = clean(told_on())
    ops = [node.op_type for node in after.graph.node]
    assert "Gemm" not in ops
    assert "Relu" not in ops
    assert "Constant" not in ops
    assert "unused" not in initializers(after)
    assert "w" not in initializers(after)
    np.testing.assert_array_equal(numpy_helper.to_array(initializers(after)["w_t"]), np.arange(12).reshape(3, 4).T)
    names = [node.name for node in after.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_stack_traces_stay_until_module_paths_were_read():
    after = clean(told_on())
    assert any(node.metadata_props for node in after.graph.node)
    strip_nodes(after)
    assert not any(node.metadata_props for node in after.graph.node)


@pytest.mark.parametrize("options", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}], ids=str)
def test_a_gemm_that_does_more_stays(options):
    tensors = [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")]
    node = helper.make_node("Gemm", ["x", "w"], ["y"], **options)
    model = helper.make_model(helper.make_graph([node], "g", [values("x", [4, 4])], [values("y", [4, 4])], tensors))
    assert [each.op_type for each in clean(model).graph.node] == ["Gemm"]


def test_cleaning_twice_changes_nothing():
    once = clean(told_on())
    strip_nodes(once)
    assert clean(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_weights_that_only_a_branch_reads_are_kept():
    model = told_on()
    drop_unused(model.graph)
    assert {"w1", "w2"} <= initializers(model).keys()
    (chosen,) = (node for node in model.graph.node if node.op_type == "If")
    for attribute, weight in zip(chosen.attribute, ("w1", "w2"), strict=True):  # handed on without a node
        attribute.g.CopyFrom(helper.make_graph([], "plain", [], [values(weight, [3])]))
    drop_unused(model.graph)
    assert {"w1", "w2"} <= initializers(model).keys()


@pytest.mark.parametrize(("version", "fine"), [(16, False), (17, True), (24, True), (25, False)])
def test_opsets(version, fine):
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", version)])
    if fine:
        check_opset(model, "here")
    else:
        with pytest.raises(UsageError, match=f"here: opset {version} is not supported"):
            check_opset(model, "here")


def test_parameters_are_the_floating_ones():
    assert parameter_count(told_on()) == 12 + 4 * 3
