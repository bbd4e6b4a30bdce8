"""Putting a float ONNX graph into the one form the steps work on: no traces, every matrix product a MatMul."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

from compress.core.errors import UsageError
from compress.data.runtime import COMPUTED, CUT
from compress.models import reference
from compress.models.attention_operator import spell_out

OPSETS = (17, 24)


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The model's weights by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """A weight as an array; one that lies in a file is read from it."""
    if reference.is_reference(tensor):
        return reference.read(tensor)
    values: NDArray[np.generic] = numpy_helper.to_array(tensor)
    return values


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without paths, source code, stale shapes or unused weights; Gemm and Attention are written as products.

    Tokens that a file leaves out until somebody asks for them are computed again. Stale value_info breaks quantizers.
    The exporter's metadata on the nodes are left for `strip_nodes`.
    """
    made = onnx.ModelProto()
    made.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    del made.training_info[:]
    made.domain = ""
    made.graph.name = "main"
    _constants_to_initializers(made.graph)
    _gemm_to_matmul(made.graph)
    _compute_all_tokens(made.graph)
    spell_out(made)
    for message in tuple(messages(made)):
        if isinstance(message, onnx.GraphProto):
            del message.value_info[:], message.quantization_annotation[:]
        _forget(message, "doc_string" if isinstance(message, onnx.NodeProto) else "metadata_props", "doc_string")
    _name_nodes(made.graph)
    drop_unused(made.graph)
    return made


def strip_nodes(model: onnx.ModelProto) -> None:
    """Remove what the exporter noted on the nodes, in place, once module paths have been read from it.

    It writes stack traces with absolute paths and source lines there.
    """
    for message in tuple(messages(model)):
        _forget(message, "metadata_props", "doc_string")


def _forget(message: Message, *fields: str) -> None:
    for name in fields:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)


def messages(message: Message) -> Iterator[Message]:
    """A protobuf message and all below it, in whatever field: nodes, attributes, subgraphs, functions, tensors."""
    yield message
    for described, value in message.ListFields():
        if described.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                yield from messages(each)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove, in place, nodes whose results nobody reads and weights that no node reads."""
    wanted = {value.name for value in graph.output}
    for at in range(len(graph.node) - 1, -1, -1):  # one by one: to put the others back would copy every weight
        if wanted.intersection(graph.node[at].output):
            wanted.update(reads(graph.node[at]))
        else:
            del graph.node[at]
    for at in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[at].name not in wanted:
            del graph.initializer[at]


def reads(node: onnx.NodeProto) -> Iterable[str]:
    """Names of the values that a node reads, those of its subgraphs among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)  # a branch may hand on what stands outside of it
            for inner in graph.node:
                yield from reads(inner)


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _compute_all_tokens(graph: onnx.GraphProto) -> None:
    """Leave out, in place, what cuts off tokens that nobody asked for (`targets.graph.pooling`, `.ending`)."""
    slices = [node for node in graph.node if node.op_type == "Slice"]
    given = {value.name for value in graph.input}
    cut = {
        node.output[0]: node.input[0]
        for node in slices
        if COMPUTED in node.input[2:3] or (node.input[0] in given and node.output[0] == f"{node.input[0]}_{CUT}")
    }
    for node in graph.node if cut else ():
        node.input[:] = [cut.get(name, name) for name in node.input]


def _gemm_to_matmul(graph: onnx.GraphProto) -> None:
    """Write a plain Gemm as MatMul and Add, so that there is one kind of matrix product to quantize."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0 and not options.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in tensors:
            nodes.append(node)
            continue
        weight = node.input[1]
        if options.get("transB", 0):
            graph.initializer.append(_turned(tensors[weight], f"{weight}_t"))
            weight = f"{weight}_t"
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        matmul = helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)
        matmul.metadata_props.extend(node.metadata_props)
        nodes.append(matmul)
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)


def _turned(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    if reference.is_reference(tensor):
        return reference.turned(tensor, name)
    return numpy_helper.from_array(np.ascontiguousarray(array(tensor).T), name)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own."""
    taken = Counter(node.name for node in graph.node)
    for at, node in enumerate(graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_{at}"


def check_opset(model: onnx.ModelProto, where: str) -> None:
    """Refuse an ONNX file of an opset outside OPSETS."""
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise UsageError(
            f"opset {version} is not supported, {OPSETS[0]} to {OPSETS[1]} are",
            where,
            "export it again with a newer opset, or convert it with onnx.version_converter",
        )


def parameter_count(model: onnx.ModelProto) -> int:
    """Number of floating point weights."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floats)
