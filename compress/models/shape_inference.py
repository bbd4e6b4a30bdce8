"""The shapes of a graph's values, as far as the nodes tell: enough to see what attention is made of.

ONNX's own inference knows none of ONNX Runtime's operators, and forgets the length of a text where positions are added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

Size = int | str | None
"""The length of an axis: a number, a name where it is known when the graph runs, None where nothing is known of it."""

Shape = list[Size]

_SAME_NUMBERS: Final = {"Identity", "Cast", "Unsqueeze", "Squeeze"}


def option(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, or the default where it has none of that name."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


class Shapes:
    """The shapes of values by name (`of`), and the sizes that small integer values hold (`holds`).

    Of two sizes that are added and of which one is not known, the known one is taken: the other is as long, or one.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.of: dict[str, Shape] = {each.name: list(each.dims) for each in model.graph.initializer}
        self.holds: dict[str, list[Size]] = {
            each.name: [int(size) for size in numpy_helper.to_array(each).reshape(-1)]
            for each in model.graph.initializer
            if each.data_type == onnx.TensorProto.INT64 and np.prod(each.dims, dtype=int) <= 8
        }
        for value in model.graph.input:
            dims = enumerate(value.type.tensor_type.shape.dim)
            self.of.setdefault(value.name, [_told(each, f"{value.name}[{at}]") for at, each in dims])
        for node in model.graph.node:
            if node.output:
                self._see(node)

    def _see(self, node: onnx.NodeProto) -> None:
        out = node.output[0]
        if node.op_type == "Shape" and node.input[0] in self.of:
            held = self.of[node.input[0]][option(node, "start", 0) : option(node, "end", None)]
            self.holds[out] = [size if size is not None else f"{out}[{at}]" for at, size in enumerate(held)]
        elif node.op_type == "Concat" and all(name in self.holds for name in node.input):
            self.holds[out] = [size for name in node.input for size in self.holds[name]]
        elif node.op_type in _SAME_NUMBERS and node.input[0] in self.holds:
            self.holds[out] = self.holds[node.input[0]]
        rule = _RULES.get(node.op_type)
        shape = rule(self, node) if rule is not None else None
        if shape is not None:
            self.of[out] = shape


def _told(axis: onnx.TensorShapeProto.Dimension, name: str) -> Size:
    """An axis of an input; axes of inputs that are called the same are as long."""
    return int(axis.dim_value) or str(axis.dim_param) or name


def _as_the_first(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    return known.of.get(node.input[0])


def _broadcast(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    return _common([known.of.get(name) for name in node.input])


def _expand(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    return _common([known.of.get(node.input[0]), known.holds.get(node.input[1])])


def _common(shapes: Sequence[Shape | None]) -> Shape | None:
    """The shape of what is added, say; None where that of one is not known."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    axes = max(map(len, known))
    padded = [[*[1] * (axes - len(shape)), *shape] for shape in known]
    return [_longest(sizes) for sizes in zip(*padded, strict=True)]


def _longest(sizes: Sequence[Size]) -> Size:
    """The one known size that is not 1; None where there are two."""
    found = {size for size in sizes if size not in (1, None)}
    if len(found) == 1:
        return found.pop()
    return 1 if all(size == 1 for size in sizes) else None


def _product(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first, second = (known.of.get(name) for name in node.input[:2])
    return [*first[:-1], second[-1]] if first and second and min(len(first), len(second)) >= 2 else None


def _product_of_blocks(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first = known.of.get(node.input[0])
    return [*first[:-1], int(option(node, "N", 0))] if first else None


def _attention(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    query, value = known.of.get(node.input[0]), known.of.get(node.input[2])
    return [*query[:-1], value[-1]] if query and value and len(query) == 3 else None


def _shape(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    return [len(known.holds[node.output[0]])] if node.output[0] in known.holds else [None]


def _range(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    start, end, step = (known.holds.get(name, [None]) for name in node.input)
    return [end[0] if (start, step) == ([0], [1]) else None]


def _slice(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first = known.of.get(node.input[0])
    return None if first is None else [None] * len(first)


def _convolution(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first, weight = (known.of.get(name) for name in node.input[:2])
    return [first[0], weight[0], *[None] * (len(first) - 2)] if first and weight else None


def _transpose(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first = known.of.get(node.input[0])
    return None if first is None else [first[at] for at in option(node, "perm", range(len(first))[::-1])]


def _gather(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first, places = (known.of.get(name) for name in node.input[:2])
    return [*places, *first[1:]] if first and places is not None and option(node, "axis", 0) == 0 else None


def _gather_elements(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    return known.of.get(node.input[1])


def _gather_places(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first, places = (known.of.get(name) for name in node.input[:2])
    if not first or not places or not isinstance(places[-1], int) or option(node, "batch_dims", 0):
        return None
    return [*places[:-1], *first[places[-1] :]]


def _unsqueeze(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first, axes = known.of.get(node.input[0]), known.holds.get(node.input[1], []) if len(node.input) > 1 else []
    numbers = [axis for axis in axes if isinstance(axis, int)]
    if first is None or not axes or len(numbers) < len(axes):
        return None
    count = len(first) + len(numbers)
    new, old = {axis % count for axis in numbers}, iter(first)
    return [1 if at in new else next(old) for at in range(count)]


def _largest_place(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first = known.of.get(node.input[0])
    if not first:
        return None
    axis = option(node, "axis", 0) % len(first)
    return [*first[:axis], *([1] if option(node, "keepdims", 1) else []), *first[axis + 1 :]]


def _reshape(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    sizes, first = known.holds.get(node.input[1]), known.of.get(node.input[0], [])
    if sizes is None:
        return None
    kept: Shape = [*first, *[None] * len(sizes)]
    copies = not option(node, "allowzero", 0)
    asked = [kept[at] if size == 0 and copies else size for at, size in enumerate(sizes)]
    return [_rest(first, asked) if size == -1 else size for size in asked]


def _rest(first: Sequence[Size], asked: Sequence[Size]) -> Size:
    """What is left for the one axis that a Reshape does not name."""
    others = [size for size in asked if size != -1]
    if not first or None in first or None in others or len(others) < len(asked) - 1:
        return None
    have, named = (Counter(size for size in sizes if isinstance(size, str)) for sizes in (first, others))
    number = _multiplied(first) // max(_multiplied(others), 1)
    left = list((have - named).elements())
    if named - have or len(left) > 1 or (left and number != 1):
        return None
    return left[0] if left else number


def _multiplied(sizes: Sequence[Size]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))


def _reduced(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    first = known.of.get(node.input[0])
    axes = known.holds.get(node.input[1], []) if len(node.input) > 1 else option(node, "axes", [])
    if not first or not axes or not option(node, "keepdims", 1):
        return None
    gone = {axis % len(first) for axis in axes if isinstance(axis, int)}
    return [1 if at in gone else size for at, size in enumerate(first)]


def _concat(known: Shapes, node: onnx.NodeProto) -> Shape | None:
    shapes = [known.of.get(name) for name in node.input]
    made = _common(shapes)
    if not made or len({len(shape) for shape in shapes if shape is not None}) > 1:
        return None
    axis = option(node, "axis", 0) % len(made)
    numbers = [shape[axis] for shape in shapes if shape is not None]
    lengths = [size for size in numbers if isinstance(size, int)]
    made[axis] = sum(lengths) if len(lengths) == len(numbers) else None
    return made


Rule = Callable[[Shapes, onnx.NodeProto], "Shape | None"]

_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        (
            "LayerNormalization", "QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Softmax", "Gelu",
            "QuickGelu", "Erf", "Sigmoid", "Tanh", "Relu", "Sqrt", "Neg", "Clip", "Reciprocal", "RMSNormalization",
            "Not",
        ),
        _as_the_first,
    ),
    **dict.fromkeys(
        (
            "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "And", "Or", "Equal", "Less", "LessOrEqual",
            "Greater", "GreaterOrEqual",
        ),
        _broadcast,
    ),
    "MatMul": _product, "MatMulIntegerToFloat": _product, "MatMulNBits": _product_of_blocks, "Attention": _attention,
    "Conv": _convolution, "Expand": _expand, "Reshape": _reshape, "Transpose": _transpose, "Gather": _gather,
    "GatherND": _gather_places, "GatherElements": _gather_elements, "Concat": _concat, "Slice": _slice,
    "Unsqueeze": _unsqueeze, "ArgMax": _largest_place,
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceL2"), _reduced),
    "Shape": _shape, "Range": _range,
}  # fmt: skip
