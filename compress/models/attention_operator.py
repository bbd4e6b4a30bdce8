"""`Attention` of ONNX 23 as the products that it stands for, so that one form is quantized, pruned and trained.

Files written for ONNX Runtime hold the operator (`targets.graph.attention`); read again, they are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.models.shape_inference import Shapes, option

HEADS_APART: Final = [0, 2, 1, 3]
"""Axes of (batch, tokens, heads, d) as (batch, heads, tokens, d), and back."""

_PLAIN: Final = {"q_num_heads", "kv_num_heads", "scale"}


def spell_out(model: onnx.ModelProto) -> None:
    """Write, in place, each Attention over values (batch, tokens, width) as nodes; others stay as they are.

    Those stay that hold a past, more query heads than keys have, a mask of booleans, or another option than a scale.
    """
    if not any(node.op_type == "Attention" and not node.domain for node in model.graph.node):
        return
    shapes, booleans = Shapes(model), _booleans(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if _is_plain(node, shapes) and not booleans.intersection(node.input[3:]):
            nodes += _spelled(model, node, shapes)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _booleans(model: onnx.ModelProto) -> set[str]:
    """Values that are certainly booleans."""
    made = {"And", "Or", "Not", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}
    found = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.BOOL}
    found |= {each.name for each in model.graph.input if each.type.tensor_type.elem_type == onnx.TensorProto.BOOL}
    found |= {name for node in model.graph.node if node.op_type in made for name in node.output}
    return found


def says_no_more(node: onnx.NodeProto) -> bool:
    """Whether a node is the operator over (batch, tokens, channels) with a scale and a mask at most.

    It has no past, as many heads of keys as of queries, and hides nothing by itself (`is_causal`).
    """
    if node.op_type != "Attention" or node.domain or any(each.name not in _PLAIN for each in node.attribute):
        return False
    heads = option(node, "q_num_heads", 0)
    return bool(heads) and heads == option(node, "kv_num_heads", 0) and len(node.input) <= 4 and len(node.output) == 1


def _is_plain(node: onnx.NodeProto, shapes: Shapes) -> bool:
    return says_no_more(node) and all(_width(shapes, name) for name in node.input[1:3])


def _width(shapes: Shapes, name: str) -> int:
    """Channels of a value (batch, tokens, channels); 0 where it is not known to be one."""
    shape = shapes.of.get(name, [])
    return shape[2] if len(shape) == 3 and isinstance(shape[2], int) else 0


def _spelled(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> Iterator[onnx.NodeProto]:
    out, heads = node.output[0], int(option(node, "q_num_heads", 1))
    width, values = (_width(shapes, name) // heads for name in node.input[1:3])  # a query is as wide as a key
    scale = float(option(node, "scale", width**-0.5))
    number = _constant(model, f"{out}_scale", np.array(scale, np.float32))
    parts = {}
    for word, name, each in zip(("query", "key", "value"), node.input, (width, width, values), strict=False):
        sizes = _constant(model, f"{out}_{word}_sizes", np.array([0, 0, heads, each], np.int64))
        parts[word] = f"{out}_{word}_heads"
        turn = [0, 2, 3, 1] if word == "key" else HEADS_APART
        yield _node("Reshape", [name, sizes], f"{out}_{word}_cut")
        yield _node("Transpose", [f"{out}_{word}_cut"], parts[word], perm=turn)
    yield _node("MatMul", [parts["query"], parts["key"]], f"{out}_products")
    yield _node("Mul", [f"{out}_products", number], f"{out}_logits")
    logits = f"{out}_logits"
    if len(node.input) > 3 and node.input[3]:
        yield _node("Add", [logits, node.input[3]], f"{out}_masked")
        logits = f"{out}_masked"
    yield _node("Softmax", [logits], f"{out}_weights", axis=-1)
    yield _node("MatMul", [f"{out}_weights", parts["value"]], f"{out}_mixed")
    yield _node("Transpose", [f"{out}_mixed"], f"{out}_turned", perm=HEADS_APART)
    yield _node(
        "Reshape", [f"{out}_turned", _constant(model, f"{out}_sizes", np.array([0, 0, heads * values], np.int64))], out
    )


def _node(op: str, inputs: list[str], output: str, **options: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **options)


def _constant(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
