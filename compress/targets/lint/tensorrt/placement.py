"""Q/DQ come in pairs, in front of products, and never around what has to stay exact."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT007"
WHY = "what is not a pair in front of a product is a conversion of its own at best, and breaks fusions at worst"

_EXACT = {
    "Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "ReduceL2", "LpNormalization", "ReduceMean",
    "Pow", "Sqrt", "Exp", "Erf", "Gelu", "Sigmoid", "Tanh",
}  # fmt: skip
_MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"}


def find(view: View) -> Iterator[Finding]:
    """Lone halves of a pair, pairs on top of each other, pairs in front of what is exact, and one-sided residuals."""
    for node in view.nodes("QuantizeLinear"):
        behind = view.readers[node.output[0]]
        if not behind or any(each.op_type != "DequantizeLinear" for each in behind):
            yield Finding(ID, node.name, "is not followed by DequantizeLinear alone")
        if view.rounds_activation(view.maker(node, 0)):
            yield Finding(ID, node.name, "rounds what has just been rounded")
    for node in view.nodes("DequantizeLinear"):
        if not view.readers[node.output[0]] and node.output[0] not in {each.name for each in view.model.graph.output}:
            yield Finding(ID, node.name, "is read by nobody")
        for op in sorted({each.op_type for each in _ahead(view, node)} & _EXACT):
            yield Finding(ID, node.name, f"{op} reads rounded values")
    for node in view.nodes("Add"):
        if len(node.input) != 2 or any(_constant(view, name) for name in node.input):
            continue  # a bias
        if sum(view.rounds_activation(view.maker(node, at)) for at in range(2)) == 1:
            yield Finding(ID, node.name, "only one side of this residual is rounded")


def _constant(view: View, name: str) -> bool:
    """Whether a value is a constant, or one that is only dequantized."""
    maker = view.makers.get(name)
    return name in view.tensors or (
        maker is not None and maker.op_type == "DequantizeLinear" and view.rounds_weight(maker)
    )


def _ahead(view: View, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """What reads a value, across nodes that only move it."""
    for reader in view.readers[node.output[0]]:
        if reader.op_type in _MOVES:
            yield from _ahead(view, reader)
        else:
            yield reader
