"""Of the last block only what the pooled token needs: one token is read of a text tower, and the others for nothing.

Keys and values of the last attention need every token; behind them each token goes its own way until one is pooled. So
the choice of that token, which the graph makes at its end, is made where the queries are: the last attention has one
query, and the output product and the MLP behind it one token instead of all. The numbers are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.models.attention_operator import HEADS_APART, says_no_more
from compress.models.graph import drop_unused, initializers, reads
from compress.models.shape_inference import Shapes, option
from compress.models.surgery import free

_ELEMENTWISE: Final = {
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Max", "Min", "Clip", "Cast", "Identity", "Gelu", "QuickGelu",
    "FastGelu", "BiasGelu", "Erf", "Tanh", "Sigmoid", "Relu", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
_BY_TOKEN: Final = {"MatMul", "MatMulIntegerToFloat", "MatMulNBits", "LayerNormalization"}
"""What makes of each token its own result, by weights: its first input holds tokens, the others do not."""

_PRODUCTS: Final = {"MatMul", "FusedMatMul"}


class _Unknown(Exception):
    """The graph has another form than those that are known."""


def pool_early(model: onnx.ModelProto) -> None:
    """Move, in place, the choice of the pooled token before the last attention; nothing where the form is not known."""
    pooled = next((node for node in reversed(model.graph.node) if node.op_type == "GatherND"), None)
    if pooled is None or option(pooled, "batch_dims", 0):
        return
    move = _Move.of(model, pooled)
    try:
        move.find_attention()
        if pooled.input[0] in move.whole:
            return
        token = move.token(pooled.input[0])
    except _Unknown:
        return
    move.node("Squeeze", [token, move.constant([1])], pooled.output[0])
    nodes = [each for node in model.graph.node for each in (move.made if node is pooled else [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(move.constants.values())
    drop_unused(model.graph)


@dataclass
class _Move:
    """The new nodes under construction; `whole` are values that all tokens are needed of."""

    model: onnx.ModelProto
    place: str
    makers: dict[str, onnx.NodeProto]
    fixed: dict[str, onnx.TensorProto]
    shapes: Shapes
    readers: Counter[str]
    whole: set[str] = field(default_factory=set)
    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto, pooled: onnx.NodeProto) -> _Move:
        """For the node that pools."""
        makers = {name: node for node in model.graph.node for name in node.output}
        readers = Counter(name for node in model.graph.node for name in set(reads(node)))
        readers.update(each.name for each in model.graph.output)
        return cls(model, pooled.input[1], makers, initializers(model), Shapes(model), readers)

    def find_attention(self) -> None:
        """Learn what is needed whole: everything that the keys and values of the last attention come from.

        Where it is spelled out its queries are as well, for heads stand between their product and it.
        """
        nodes = self.model.graph.node
        last = next((node for node in reversed(nodes) if node.op_type in ("Softmax", "Attention")), None)
        if last is not None and last.op_type == "Attention" and self._one_of_each_sample():
            for value in last.input[1:3]:
                self.whole.update(name for node in self._before(value) for name in node.output)
            return
        weights = [node.output[0] for node in nodes if node.op_type == "Softmax"][-1:]
        mixed = [node for node in nodes if weights and weights[0] in node.input]
        logits = [node for name in weights for node in self._before(name) if node.op_type in _PRODUCTS][:1]
        if not (self._one_of_each_sample() and len(mixed) == 1 and logits):
            raise _Unknown
        if mixed[0].op_type not in _PRODUCTS or mixed[0].input[0] != weights[0]:
            raise _Unknown
        for value in (*logits[0].input, mixed[0].input[1]):
            self.whole.update(name for node in self._before(value) for name in node.output)

    def token(self, value: str) -> str:
        """The pooled token (batch, 1, d) of a value (batch, tokens, d)."""
        return self._once(value, self._token)

    def _token(self, value: str, name: str) -> str:
        if value in self.whole:
            return self._chosen(value, name)
        node = self._maker(value)
        if node.op_type in _ELEMENTWISE:
            return self._again(node, self._inputs(node.input, self.token), name)
        if node.op_type in _BY_TOKEN and self._token_by_token(node):
            return self._again(node, [self.token(node.input[0]), *node.input[1:]], name)
        if says_no_more(node):
            masks = [self._row_of_mask(each, f"{name}_mask") for each in node.input[3:4] if each]
            return self._again(node, [self._query(node.input[0]), *node.input[1:3], *masks], name)
        if node.op_type == "Reshape" and self._maker(node.input[0]).op_type == "Attention":
            return self.token(node.input[0])
        if node.op_type == "Reshape":
            apart = self._maker(node.input[0])
            mixed = self._maker(apart.input[0])
            if apart.op_type == "Transpose" and option(apart, "perm", []) == HEADS_APART and mixed.op_type in _PRODUCTS:
                heads = self._again(mixed, [self.row(mixed.input[0]), mixed.input[1]], f"{name}_mixed")
                together = self.node("Transpose", [heads], f"{name}_heads", perm=HEADS_APART)
                return self.node("Reshape", [together, self.constant([0, 1, -1])], name)
        raise _Unknown

    def _query(self, value: str) -> str:
        """The query of the pooled token: computed for it alone, or chosen where others read it or its form is new."""
        try:
            return self.token(value) if self._sole(value) else self._once(value, self._chosen)
        except _Unknown:
            return self._once(value, self._chosen)

    def _sole(self, value: str) -> bool:
        """Whether nothing that a value is made of is read by others, up to what is needed whole."""
        if value in self.whole or value not in self.makers:
            return True
        return self.readers[value] == 1 and all(map(self._sole, reads(self.makers[value])))

    def _chosen(self, value: str, name: str) -> str:
        chosen = self.node("GatherND", [value, self.place], f"{name}_chosen")
        return self.node("Unsqueeze", [chosen, self.constant([1])], name)

    def _token_by_token(self, node: onnx.NodeProto) -> bool:
        """Whether all but the first input are weights, and the same for all tokens."""
        if node.op_type == "LayerNormalization" and option(node, "axis", -1) not in (-1, 2):
            return False
        if node.op_type == "MatMul" and (node.input[1] not in self.fixed or len(self.fixed[node.input[1]].dims) != 2):
            return False
        return all(not each or each in self.fixed for each in node.input[1:])

    def row(self, value: str) -> str:
        """The row (batch, heads, 1, d) that belongs to the pooled token of a value (batch, heads, tokens, d)."""
        return self._once(value, self._row)

    def _row(self, value: str, name: str) -> str:
        node = self._maker(value)
        if node.op_type == "Transpose" and option(node, "perm", []) == HEADS_APART:
            chosen = self.node("GatherND", [node.input[0], self.place], f"{name}_chosen")
            return self.node("Unsqueeze", [chosen, self.constant([2])], name)
        if value in self.whole or not any(each.op_type in _PRODUCTS for each in self._before(value)):
            return self._row_of_mask(value, name)
        if node.op_type == "Softmax" and option(node, "axis", -1) in (-1, 3):
            return self._again(node, [self.row(node.input[0])], name)
        if node.op_type == "ReduceMax" and self._reduces_last(node):
            return self._again(node, [self.row(node.input[0]), *node.input[1:]], name)
        if node.op_type in _ELEMENTWISE:
            return self._again(node, self._inputs(node.input, self.row), name)
        if node.op_type in _PRODUCTS and not option(node, "transA", 0):
            return self._again(node, [self.row(node.input[0]), node.input[1]], name)
        raise _Unknown

    def _row_of_mask(self, value: str, name: str) -> str:
        """Of a mask, or of whatever is there for all tokens: (batch or 1, heads or 1, tokens, d)."""
        shape = self.shapes.of.get(value, [])
        if (
            len(shape) == 4
            and shape[1] == 1
            and shape[0] is not None
            and [shape[0]] == self.shapes.of.get(self.place, [])[:1]
        ):
            alike = self.node("Squeeze", [value, self.constant([1])], f"{name}_alike")
            chosen = self.node("GatherND", [alike, self.place], f"{name}_chosen")
            return self.node("Unsqueeze", [chosen, self.constant([1, 2])], name)
        batch = self.node("Shape", [self.place], f"{name}_batch", start=0, end=1)
        sizes = self.node("Concat", [batch, self.constant([1, 1, 1])], f"{name}_sizes", axis=0)
        wide = self.node("Expand", [value, sizes], f"{name}_wide")
        apart = self.node("Transpose", [wide], f"{name}_apart", perm=HEADS_APART)
        chosen = self.node("GatherND", [apart, self.place], f"{name}_chosen")
        return self.node("Unsqueeze", [chosen, self.constant([2])], name)

    def _inputs(self, names: Iterable[str], chosen: Callable[[str], str]) -> list[str]:
        """What a node reads of one token: constants of at most one axis are the same for all of them."""
        return [each if not each or self._alike(each) else chosen(each) for each in names]

    def _alike(self, name: str) -> bool:
        if name in self.fixed and len(self.fixed[name].dims) > 1:
            raise _Unknown
        return name in self.fixed

    def _again(self, node: onnx.NodeProto, inputs: Sequence[str], name: str) -> str:
        """The same node for one token."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.append(name)
        self.made.append(made)
        return name

    def _once(self, value: str, how: Callable[[str, str], str]) -> str:
        if value not in self._known:
            self._known[value] = how(value, self._name(f"{value}_pooled"))
        return self._known[value]

    def _name(self, wanted: str) -> str:
        return free(self.model, wanted)

    def node(self, op: str, inputs: Sequence[str], output: str, **options: Any) -> str:
        """Add a node; returns its output."""
        self.made.append(helper.make_node(op, inputs, [output], name=f"{output}_{op}", **options))
        return output

    def constant(self, values: Sequence[int]) -> str:
        """The name of an integer constant."""
        name = self._name("pooled_" + "_".join(map(str, values)).replace("-", "m"))
        self.constants.setdefault(name, numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _before(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that a value comes from, the nearest first."""
        found: dict[str, onnx.NodeProto] = {}
        queue = [value]
        while queue:
            node = self.makers.get(queue.pop(0))
            if node is not None and node.output[0] not in found:
                found[node.output[0]] = node
                queue.extend(reads(node))
        return list(found.values())

    def _maker(self, value: str) -> onnx.NodeProto:
        node = self.makers.get(value)
        if node is None:
            raise _Unknown
        return node

    def _reduces_last(self, node: onnx.NodeProto) -> bool:
        given = self.fixed.get(node.input[1]) if len(node.input) > 1 else None
        axes = numpy_helper.to_array(given).tolist() if given is not None else option(node, "axes", [])
        return list(axes) in ([-1], [3]) and option(node, "keepdims", 1) == 1

    def _one_of_each_sample(self) -> bool:
        """Whether what is chosen are pairs of a sample's number, in order, and a token of it."""
        pairs = self.makers.get(self.place)
        if (
            pairs is None
            or pairs.op_type != "Concat"
            or len(pairs.input) != 2
            or option(pairs, "axis", 0) not in (1, -1)
        ):
            return False
        number = self.makers.get(pairs.input[0])
        count = self.makers.get(number.input[0]) if number is not None and number.op_type == "Unsqueeze" else None
        if count is None or count.op_type != "Range":
            return False
        start, step = (self.fixed.get(count.input[at]) for at in (0, 2))
        return (
            start is not None
            and step is not None
            and [int(numpy_helper.to_array(each)) for each in (start, step)] == [0, 1]
        )
