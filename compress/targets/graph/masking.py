"""Masked attention without subnormal numbers, which a processor computes with many times slower than with others.

A mask of large negative numbers leaves masked logits so far below the largest of their row that their exponential is
subnormal: ONNX Runtime's Softmax takes five times as long for a causal mask of 77 tokens as without one. Logits are
lifted to 80 below the largest of their row: what is masked then weighs 2e-35, which no sum in single precision sees.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.models.graph import array, initializers, reads
from compress.models.surgery import free

BELOW: Final = -80.0
"""The exponential of -87.3 is the least normal number of single precision; 80 leaves room for the sum of a row."""

_MASKED: Final = -1e3
"""A constant that is added to logits is a mask where it has less than this, and a bias of positions otherwise."""

_KEYS: Final = (-1, 3)
"""Axes of keys: the last, which is the fourth where heads are apart."""

_AXES_AS_INPUT: Final = 18
_PRODUCTS: Final = {"MatMul", "MatMulNBits", "MatMulIntegerToFloat", "Gemm", "Einsum"}


def lift_masked(model: onnx.ModelProto) -> None:
    """Lift, in place, what a mask pushed down before each Softmax; nothing where no mask is added."""
    graph, weights = model.graph, initializers(model)
    makers = {name: node for node in graph.node for name in node.output}
    computed, below = _computed(graph), free(model, "lifted_to")
    made: list[onnx.NodeProto] = []
    for node in graph.node:
        logits = makers.get(node.input[0]) if node.op_type == "Softmax" and _axis(node) in _KEYS else None
        if (
            logits is not None
            and logits.op_type == "Add"
            and any(name not in computed and hides(weights.get(name)) for name in logits.input)
        ):
            made += _lifted(model, node, below)
        made.append(node)
    if len(made) > len(graph.node):
        graph.initializer.append(numpy_helper.from_array(np.float32(BELOW), below))
        del graph.node[:]
        graph.node.extend(made)


def _lifted(model: onnx.ModelProto, softmax: onnx.NodeProto, below: str) -> list[onnx.NodeProto]:
    """Nodes that lift the logits, which the Softmax then reads, by the largest along its own axis."""
    logits, name = softmax.input[0], softmax.output[0]  # two may read the same logits
    largest, least, lifted = (f"{name}_{word}" for word in ("largest", "least", "lifted"))
    if _opset(model) >= _AXES_AS_INPUT:
        axes = f"{name}_axis"
        model.graph.initializer.append(numpy_helper.from_array(np.array([_axis(softmax)], np.int64), axes))
        found = helper.make_node("ReduceMax", [logits, axes], [largest], name=largest, keepdims=1)
    else:
        found = helper.make_node("ReduceMax", [logits], [largest], name=largest, keepdims=1, axes=[_axis(softmax)])
    softmax.input[0] = lifted
    return [
        found,
        helper.make_node("Add", [largest, below], [least], name=least),
        helper.make_node("Max", [logits, least], [lifted], name=lifted),
    ]


def _computed(graph: onnx.GraphProto) -> set[str]:
    """Values that come of a product, as logits do and masks do not."""
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in _PRODUCTS or found.intersection(reads(node)):
            found.update(node.output)
    return found


def hides(constant: onnx.TensorProto | None) -> bool:
    """Whether what is added is a mask: made of the inputs, or a constant with very low numbers."""
    return constant is None or bool(np.min(array(constant).astype(np.float64), initial=0.0) < _MASKED)


def _axis(softmax: onnx.NodeProto) -> int:
    return next((int(each.i) for each in softmax.attribute if each.name == "axis"), -1)


def _opset(model: onnx.ModelProto) -> int:
    return next(int(each.version) for each in model.opset_import if not each.domain)
