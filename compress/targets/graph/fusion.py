"""Products with their dequantization and their bias as one operator of ONNX Runtime, for its CPU provider.

Its own optimizer makes `MatMulIntegerToFloat` of a product between two DequantizeLinear, and leaves the bias outside:
one more pass over every activation. Written so from the start, the file also says which kernels will run.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from compress.models.graph import drop_unused, initializers
from compress.targets.graph.emitter import CONTRIB

_BIAS = {"MatMulIntegerToFloat": 6, "MatMulNBits": 5}
"""Where an operator takes its bias."""


def fuse_products(model: onnx.ModelProto) -> None:
    """Rewrite every quantized product of an emitted graph, in place; the numbers stay the same but for rounding."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = initializers(model)
    integer = [node for node in graph.node if node.op_type == "MatMul" and _quantized(node, makers, weights)]
    for node in integer:
        _integer_product(node, makers)
    _absorb_biases(graph, weights)
    _drop_unread(graph)
    drop_unused(graph)
    if integer and CONTRIB not in {each.domain for each in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _quantized(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether a product reads two dequantized values: uint8 with a zero point, and an int8 weight per column."""
    sides = [makers.get(name) for name in node.input]
    if any(side is None or side.op_type != "DequantizeLinear" for side in sides):
        return False
    value, weight = (side for side in sides if side is not None)
    signed = weights.get(weight.input[0])
    return len(value.input) == 3 and signed is not None and signed.data_type == onnx.TensorProto.INT8


def _integer_product(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> None:
    value, weight = (makers[name] for name in node.input)
    inputs = [value.input[0], weight.input[0], value.input[1], weight.input[1], value.input[2]]
    made = helper.make_node("MatMulIntegerToFloat", inputs, list(node.output), name=node.name, domain=CONTRIB)
    node.CopyFrom(made)


def _absorb_biases(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> None:
    """Take the addition of a constant row after a quantized product into the product."""
    pairs = {add.output[0]: (product, add, bias) for product, add, bias in _biased(graph, weights)}
    for product, add, bias in pairs.values():
        place = _BIAS[product.op_type]
        product.input.extend([""] * (place - len(product.input)))
        product.input.append(bias)
        product.output[0] = add.output[0]
    kept = [node for node in graph.node if not (node.op_type == "Add" and node.output[0] in pairs)]
    del graph.node[:]
    graph.node.extend(kept)


def _biased(
    graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]
) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, str]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    returned = {value.name for value in graph.output}
    for node in graph.node:
        reading = readers.get(node.output[0], []) if node.op_type in _BIAS else []
        if len(reading) != 1 or reading[0].op_type != "Add" or node.output[0] in returned:
            continue
        bias = next((name for name in reading[0].input if name != node.output[0]), "")
        if (
            (tensor := weights.get(bias)) is not None
            and len(tensor.dims) == 1
            and len(node.input) <= _BIAS[node.op_type]
        ):
            yield node, reading[0], bias


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes whose values nobody reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        kept = [node for node in graph.node if any(name in read for name in node.output if name)]
        if len(kept) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(kept)
