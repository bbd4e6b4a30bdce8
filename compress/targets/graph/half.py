"""A float graph in half precision, with islands of float where range or meaning needs them, and casts between."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.graph import array
from compress.targets.graph.types import element_types

LARGEST: Final = 65504.0
"""The largest number in half precision; 2**-14 is the smallest that keeps all its digits."""

_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_SMALLEST: Final = 2.0**-14

_SUMS: Final = {
    "ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "ReduceMean", "ReduceLogSumExp", "LpNormalization",
    "Pow", "Exp", "Log",
}  # fmt: skip
"""Their inner sums and powers leave the range before their results do. LayerNormalization is not one of them: its
`stash_type` says that it sums in float whatever its tensors are."""

_MAKERS: Final = {"Cast", "CastLike", "ConstantOfShape", "Range", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
"""They make floats of something else; what type is in an attribute."""

_LAST: Final = {"Add", "Sub", "Mul", "Div"}
"""What ends a tower is computed in float: an embedding of length one has more digits than half precision."""

_LINEAR: Final = {"QuantizeLinear", "DequantizeLinear"}


def halved(model: onnx.ModelProto, nodes: frozenset[str], wide: frozenset[str]) -> onnx.ModelProto:
    """The same graph in half precision; inputs and outputs keep their types.

    In float stay the named nodes, every node that reads or makes a value in `wide`, and what needs it by its kind.
    Raises UsageError for a graph with branches.
    """
    if any(item.HasField("g") or item.graphs for node in model.graph.node for item in node.attribute):
        raise UsageError("a graph with branches cannot be put into half precision", hint="leave quantize.fp16 out")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    types = element_types(model)
    islands = _islands(model, nodes, wide, types)
    converter = _Converter(types, {each.name: each for each in model.graph.initializer})
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        converter.convert(node, node.name in islands, outputs)
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(converter.nodes)
    made.graph.initializer.extend(converter.weights.values())
    return made


def _islands(model: onnx.ModelProto, nodes: frozenset[str], wide: frozenset[str], types: dict[str, int]) -> set[str]:
    """Names of the nodes that stay in float."""
    tensors = {each.name: each for each in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    found = set(nodes)
    for node in model.graph.node:
        floats = {name for name in (*node.input, *node.output) if types.get(name) == _FLOAT}
        by_kind = node.op_type in _SUMS | _MAKERS or (node.op_type in _LAST and not outputs.isdisjoint(node.output))
        weights = [tensors[name] for name in floats if name in tensors]
        if by_kind or not wide.isdisjoint(floats) or any(_unfit(each, node.op_type in _LINEAR) for each in weights):
            found.add(node.name)
    _spread(model, found)
    return found


def _unfit(tensor: onnx.TensorProto, scale: bool) -> bool:
    """Whether a weight leaves the range of half precision; a scale may lose no digit at the lower end."""
    sizes = np.abs(array(tensor).astype(np.float32))
    return bool((sizes > LARGEST).any() or (scale and (sizes < _SMALLEST).any()))


def _spread(model: onnx.ModelProto, found: set[str]) -> None:
    """Q/DQ and the product they feed have one type: if one of them stays in float, all do."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    tied = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            first = makers.get(node.input[0])
            tied.append([node.name, *([first.name] if first else []), *(each.name for each in readers[node.output[0]])])
    before = -1
    while before != len(found):
        before = len(found)
        for group in tied:
            if not found.isdisjoint(group):
                found.update(group)


@dataclass(slots=True)
class _Converter:
    """Nodes of the converted graph so far, which of their values are half, and the casts between the two."""

    types: dict[str, int]
    tensors: dict[str, onnx.TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    half: dict[str, str] = field(default_factory=dict)
    """Value -> the name of its half form."""
    whole: dict[str, str] = field(default_factory=dict)
    """Value that was made in half -> the name of its float form."""

    def convert(self, node: onnx.NodeProto, island: bool, outputs: set[str]) -> None:
        """Add a node, after the casts that it needs."""
        if node.op_type == "Cast" and self.types.get(node.input[0]) == _HALF and self._to(node) == _FLOAT:
            self.half[node.output[0]] = node.input[0]  # half already: the cast is made again if somebody asks for it
            if not outputs.isdisjoint(node.output):
                self.nodes.append(node)
            return
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for at, name in enumerate(node.input):
            if self.types.get(name) == _FLOAT:
                new.input[at] = self._float(name) if island else self._half(name)
        self.nodes.append(new)
        for at, name in enumerate(node.output):
            if island or self.types.get(name) != _FLOAT:
                continue
            self.half[name] = name
            if name in outputs:
                self.half[name] = new.output[at] = f"{name}_fp16"
                self.whole[name] = self._cast(new.output[at], name, _FLOAT)

    @staticmethod
    def _to(node: onnx.NodeProto) -> int:
        return int(next(item.i for item in node.attribute if item.name == "to"))

    def _half(self, name: str) -> str:
        if name not in self.half:
            made = f"{name}_fp16"
            if name in self.tensors:
                values = array(self.tensors[name]).astype(np.float16)
                self.weights[made] = numpy_helper.from_array(np.ascontiguousarray(values), made)
            else:
                self._cast(name, made, _HALF)
            self.half[name] = made
            self.whole.setdefault(name, name)
        return self.half[name]

    def _float(self, name: str) -> str:
        if name not in self.half:
            return name
        if name not in self.whole:
            self.whole[name] = self._cast(self.half[name], f"{name}_fp32", _FLOAT)
        return self.whole[name]

    def _cast(self, value: str, made: str, kind: int) -> str:
        self.nodes.append(helper.make_node("Cast", [value], [made], name=f"{made}_Cast", to=kind))
        return made
