"""Attention as one operator, for the CPU provider of ONNX Runtime: `Attention` of ONNX 23 instead of ten nodes.

A framework writes queries, keys and values cut into heads, turned, multiplied, masked, and put together again, and
every step is a pass over memory; none of ONNX Runtime's own fusions knows the graphs of torch's exporter. The operator
reads the products as they are.

A mask of huge negative numbers makes it slower: the exponential of what lies 87.3 below the largest of its row is
subnormal, which a processor computes many times slower. So masks are cut off at 80 below the largest of their row: what
is masked weighs e^-80 = 2e-35 of what it would without a mask, and single precision sees nothing of it unless its logit
is more than 60 above the largest that is visible (pocket-clip has 51 where texts are noise). In a row that is masked as
a whole all keys weigh alike, as before: the lowest number of all would say that there is nothing to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.models.attention_operator import HEADS_APART
from compress.models.graph import array, drop_unused, initializers
from compress.models.shape_inference import Shapes, Size, option
from compress.models.surgery import free
from compress.targets.graph.masking import BELOW, hides

_LOWEST: Final = -1e30
"""Far below what any logit could make up for, and no infinity."""

_OPSET: Final = 23
_IR: Final = 11
_FROM: Final = 18
"""Older graphs would mean something else as opset 23: axes of reductions were attributes."""

_OTHERWISE_SINCE: Final = {"GroupNormalization", "DFT"}
"""Operators that changed between the two."""

_KEYS_ACROSS: Final = [0, 2, 3, 1]
_LAST_TWO: Final = [0, 1, 3, 2]


class _Unknown(Exception):
    """These nodes are no attention of the known form."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One attention: values (batch, tokens, width), the node whose output it makes, and its options."""

    query: str
    key: str
    value: str
    mask: str
    joined: onnx.NodeProto
    heads: int
    scale: float
    needless: bool


def fuse_attention(model: onnx.ModelProto) -> None:
    """Rewrite, in place, every attention whose form is known; the others stay as they are."""
    standard = next(each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if standard.version < _FROM or any(node.op_type in _OTHERWISE_SINCE for node in model.graph.node):
        return
    graph = _Graph(model)
    found = {each.joined.output[0]: each for each in graph.attentions()}
    if not found:
        return
    masks = _Masks(model, graph.shapes)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        each = found.get(node.output[0]) if node.output else None
        if each is None:
            nodes.append(node)
            continue
        mask = masks.seen_by(each) if each.mask else ""
        nodes += [*masks.take(), *_written(model, each, mask)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused(model.graph)
    standard.version, model.ir_version = max(standard.version, _OPSET), max(model.ir_version, _IR)


def _written(model: onnx.ModelProto, each: _Found, mask: str) -> Iterator[onnx.NodeProto]:
    """The operator, and the Reshape that was behind the heads where it may ask for another shape."""
    out = each.joined.output[0]
    name = out if each.needless else free(model, f"{out}_attended")
    inputs = [each.query, each.key, each.value, *([mask] if mask else [])]
    options = {"q_num_heads": each.heads, "kv_num_heads": each.heads, "scale": each.scale}
    yield helper.make_node("Attention", inputs, [name], name=each.joined.name if each.needless else name, **options)
    if not each.needless:
        joined = onnx.NodeProto()
        joined.CopyFrom(each.joined)
        joined.input[0] = name
        yield joined


@dataclass
class _Masks:
    """Masks as the operator takes them: cut off, and with a row for each query. One that several read is made once."""

    model: onnx.ModelProto
    shapes: Shapes
    known: dict[str, str] = field(default_factory=dict)
    made: list[onnx.NodeProto] = field(default_factory=list)

    def seen_by(self, each: _Found) -> str:
        """The mask of an attention in the new form."""
        if each.mask not in self.known:
            constant = initializers(self.model).get(each.mask)
            cut = self._cut(each.mask) if hides(constant) else each.mask
            self.known[each.mask] = cut if self._has_each_query(each) else self._for_each_query(each, cut)
        return self.known[each.mask]

    def _has_each_query(self, each: _Found) -> bool:
        """Whether the mask is known to have a row for each query."""
        rows, queries = self.shapes.of.get(each.mask, [])[-2:-1], self.shapes.of.get(each.query, [])[1:2]
        return rows == queries and rows not in ([], [None])

    def take(self) -> list[onnx.NodeProto]:
        """The nodes that were made since the last time."""
        made, self.made = self.made, []
        return made

    def _cut(self, mask: str) -> str:
        axis = self._constant("keys", np.array([-1], np.int64))
        largest = self._node("ReduceMax", [mask, axis], f"{mask}_largest", keepdims=1)
        least = self._node("Add", [largest, self._constant("hidden", np.array(BELOW, np.float32))], f"{mask}_least")
        lowest = self._constant("lowest", np.array(_LOWEST, np.float32))
        return self._node("Max", [mask, least, lowest], f"{mask}_cut")

    def _for_each_query(self, each: _Found, mask: str) -> str:
        one = self._constant("one_of_all", np.array([1], np.int64))
        rows = self._node("Shape", [each.query], f"{mask}_queries", start=1, end=2)
        sizes = self._node("Concat", [one, one, rows, one], f"{mask}_sizes", axis=0)
        return self._node("Expand", [mask, sizes], f"{mask}_rows")

    def _node(self, op: str, inputs: Sequence[str], wanted: str, **options: Any) -> str:
        name = free(self.model, wanted)
        self.made.append(helper.make_node(op, inputs, [name], name=name, **options))
        return name

    def _constant(self, wanted: str, value: NDArray[np.generic]) -> str:
        name = free(self.model, wanted)
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


class _Graph:
    """What a graph says of its values, and the attentions in it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.fixed: Mapping[str, onnx.TensorProto] = initializers(model)
        self.shapes = Shapes(model)
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.returned = {value.name for value in model.graph.output}

    def attentions(self) -> Iterator[_Found]:
        """Those of the known form, in the order of the graph."""
        for node in self.nodes:
            if node.op_type == "Softmax" and option(node, "axis", -1) in (-1, 3):
                try:
                    yield self._around(node)
                except _Unknown:
                    continue

    def _around(self, softmax: onnx.NodeProto) -> _Found:
        product, mask, scale = self._logits(softmax.input[0])
        query, scale = self._scaled(product.input[0], scale)
        key, scale = self._scaled(product.input[1], scale)
        mixed = self._sole_reader(softmax.output[0], "MatMul")
        if mixed.input[0] != softmax.output[0]:
            raise _Unknown
        turned = self._sole_reader(mixed.output[0], "Transpose")
        joined = self._sole_reader(turned.output[0], "Reshape")
        if option(turned, "perm", []) != HEADS_APART:
            raise _Unknown
        parts = [
            self._apart(query, HEADS_APART),
            self._apart(*self._uncrossed(key)),
            self._apart(mixed.input[1], HEADS_APART),
        ]
        heads = {count for _, count in parts}
        if len(heads) != 1:
            raise _Unknown
        (q, k, v), (count,) = (name for name, _ in parts), heads
        return _Found(q, k, v, mask, joined, count, scale, self._needless(joined, self._shape(q), self._shape(v)))

    def _needless(self, joined: onnx.NodeProto, query: Sequence[Size], value: Sequence[Size]) -> bool:
        """Whether the Reshape behind the heads asks for what the operator makes anyway."""
        asked = self.shapes.holds.get(joined.input[1], [])
        return len(asked) == 3 and self._same_tokens(query, asked) and asked[2] in (-1, value[2])

    def _logits(self, name: str) -> tuple[onnx.NodeProto, str, float]:
        """The product that logits come from, the mask that was added or none, and what they were multiplied with."""
        node = self._own(name)
        if node.op_type != "Add":
            product, scale = self._product(name)
            return product, "", scale
        for at in (0, 1):
            try:
                product, scale = self._product(node.input[at])
            except _Unknown:
                continue
            return product, node.input[1 - at], scale
        raise _Unknown

    def _product(self, name: str) -> tuple[onnx.NodeProto, float]:
        inner, scale = self._scaled(name, 1.0)
        node = self._own(inner)
        if node.op_type != "MatMul":
            raise _Unknown
        return node, scale

    def _scaled(self, name: str, scale: float) -> tuple[str, float]:
        """A value before it was multiplied or divided by one number."""
        node = self.makers.get(name)
        if node is None or node.op_type not in ("Mul", "Div") or len(self.readers.get(name, [])) != 1:
            return name, scale
        at = next((at for at in (1, 0) if self._number(node.input[at]) is not None), None)
        if at is None or (node.op_type == "Div" and at == 0):
            return name, scale
        number = self._number(node.input[at])
        assert number is not None
        return node.input[1 - at], scale * number if node.op_type == "Mul" else scale / number

    def _number(self, name: str) -> float | None:
        tensor = self.fixed.get(name)
        return (
            float(array(tensor).reshape(-1)[0]) if tensor is not None and np.prod(tensor.dims, dtype=int) == 1 else None
        )

    def _uncrossed(self, key: str) -> tuple[str, list[int]]:
        """Of keys (batch, heads, d, tokens) what `_apart` takes: they are turned at once, or once more."""
        node = self._own(key)
        if node.op_type == "Transpose" and option(node, "perm", []) == _LAST_TWO:
            return node.input[0], HEADS_APART
        return key, _KEYS_ACROSS

    def _apart(self, name: str, axes: list[int]) -> tuple[str, int]:
        """The value (batch, tokens, width) that was cut into heads, which were turned by `axes`; and how many."""
        turned = self._own(name)
        if turned.op_type != "Transpose" or option(turned, "perm", []) != axes:
            raise _Unknown
        cut = self._own(turned.input[0])
        shape, asked = self._shape(cut.input[0]), self.shapes.holds.get(cut.input[1], [])
        if cut.op_type != "Reshape" or len(shape) != 3 or len(asked) != 4 or not self._same_tokens(shape, asked):
            raise _Unknown
        heads, width = self.shapes.of[cut.output[0]][2:]
        if not isinstance(heads, int):
            heads = shape[2] // width if isinstance(width, int) and isinstance(shape[2], int) else 0
        if heads < 1 or not isinstance(shape[2], int) or shape[2] % heads or width not in (None, shape[2] // heads):
            raise _Unknown
        return cut.input[0], heads

    def _same_tokens(self, shape: Sequence[Size], asked: Sequence[Size]) -> bool:
        """Whether a Reshape leaves the second axis as it is; then it leaves the first as well."""
        return asked[1] == 0 or (shape[1] is not None and shape[1] == asked[1])

    def _shape(self, name: str) -> Sequence[Size]:
        return self.shapes.of.get(name, [])

    def _own(self, name: str) -> onnx.NodeProto:
        """The node that makes a value which one other node reads and nobody else sees."""
        if len(self.readers.get(name, [])) != 1 or name in self.returned:
            raise _Unknown
        return self._maker(name)

    def _maker(self, name: str) -> onnx.NodeProto:
        if name not in self.makers:
            raise _Unknown
        return self.makers[name]

    def _sole_reader(self, name: str, op: str) -> onnx.NodeProto:
        reading = self.readers.get(name, [])
        if len(reading) != 1 or reading[0].op_type != op or name in self.returned:
            raise _Unknown
        return reading[0]
