"""Of the last block only what the pooled token needs: one token is read of a tower, and the others for nothing.

Keys and values of the last attention need every token; behind them each token goes its own way until one is pooled. So
the choice of that token, which the graph makes at its end, is made where the queries are: the last attention has one
query, and the output product and the MLP behind it one token instead of all. The numbers are the same.

A text tower pools the token that ends the text, by its place. A vision tower pools its first, and one number in the
file (`runtime.COMPUTED`) says how many are computed up to there: readers of patch tokens put that of all in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.data.runtime import COMPUTED
from compress.models.attention_operator import HEADS_APART, says_no_more
from compress.models.graph import drop_unused, initializers, reads
from compress.models.shape_inference import Shapes, option
from compress.models.surgery import free

ELEMENTWISE: Final = {
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Max", "Min", "Clip", "Cast", "Identity", "Gelu", "QuickGelu",
    "FastGelu", "BiasGelu", "Erf", "Tanh", "Sigmoid", "Relu", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
"""What makes each number of its result of the numbers in the same place."""

BY_TOKEN: Final = {"MatMul", "MatMulIntegerToFloat", "MatMulNBits", "LayerNormalization"}
"""What makes of each token its own result, by weights: its first input holds tokens, the others do not."""

_PRODUCTS: Final = {"MatMul", "FusedMatMul"}


class _Unknown(Exception):
    """The graph has another form than those that are known."""


def pool_early(model: onnx.ModelProto, tokens: str | None = None) -> None:
    """Move, in place, the choice of the pooled token before the last attention; nothing where the form is not known.

    `tokens` names the value whose tokens others may ask for; it keeps its name.
    """
    fixed = initializers(model)
    pooled = next((node for node in reversed(model.graph.node) if _pools(node, fixed)), None)
    if pooled is None:
        return
    move = _Move.of(model, pooled, fixed)
    try:
        move.find_attention()
        if pooled.input[0] in move.whole or move.shapes.of.get(pooled.input[0], [])[1:2] == [1]:
            return
        token = move.token(pooled.input[0])
        move.hand_on(pooled, token)
        gone = move.keep_name(tokens)
    except _Unknown:
        return
    nodes = [each for node in model.graph.node for each in (move.made if node is pooled else [node])]
    kept = [node for node in nodes if node is not gone]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(move.constants.values())
    drop_unused(model.graph)


def _pools(node: onnx.NodeProto, fixed: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node chooses a token of each sample: by places, or the first."""
    if node.op_type == "GatherND":
        return not option(node, "batch_dims", 0)
    if node.op_type != "Gather" or option(node, "axis", 0) != 1:
        return False
    place = fixed.get(node.input[1])
    return place is not None and not place.dims and int(numpy_helper.to_array(place)) == 0


@dataclass
class _Move:
    """The new nodes under construction; `whole` are values that all tokens are needed of.

    `place` holds pairs of a sample's number and the token that is pooled of it; None where that is the first.
    """

    model: onnx.ModelProto
    place: str | None
    makers: dict[str, onnx.NodeProto]
    fixed: dict[str, onnx.TensorProto]
    shapes: Shapes
    readers: Counter[str]
    whole: set[str] = field(default_factory=set)
    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto, pooled: onnx.NodeProto, fixed: dict[str, onnx.TensorProto]) -> _Move:
        """For the node that pools."""
        makers = {name: node for node in model.graph.node for name in node.output}
        readers = Counter(name for node in model.graph.node for name in set(reads(node)))
        readers.update(each.name for each in model.graph.output)
        place = pooled.input[1] if pooled.op_type == "GatherND" else None
        return cls(model, place, makers, fixed, Shapes(model), readers)

    def find_attention(self) -> None:
        """Learn what is needed whole: everything that the keys and values of the last attention come from.

        Where it is spelled out its queries are as well, for heads stand between their product and it.
        """
        nodes = self.model.graph.node
        last = next((node for node in reversed(nodes) if node.op_type in ("Softmax", "Attention")), None)
        if self.place is not None and not chooses_in_order(self.place, self.makers, self.fixed):
            raise _Unknown
        if last is not None and last.op_type == "Attention":
            for value in last.input[1:3]:
                self.whole.update(name for node in self._before(value) for name in node.output)
            return
        weights = [node.output[0] for node in nodes if node.op_type == "Softmax"][-1:]
        mixed = [node for node in nodes if weights and weights[0] in node.input]
        logits = [node for name in weights for node in self._before(name) if node.op_type in _PRODUCTS][:1]
        if len(mixed) != 1 or not logits:
            raise _Unknown
        if mixed[0].op_type not in _PRODUCTS or mixed[0].input[0] != weights[0]:
            raise _Unknown
        for value in (*logits[0].input, mixed[0].input[1]):
            self.whole.update(name for node in self._before(value) for name in node.output)

    def hand_on(self, pooled: onnx.NodeProto, token: str) -> None:
        """Make what was pooled of all tokens of the one that is left."""
        if self.place is None:
            self._again(pooled, [token, *pooled.input[1:]], pooled.output[0])
        else:
            self.node("Squeeze", [token, self.constant([1])], pooled.output[0])

    def keep_name(self, value: str | None) -> onnx.NodeProto | None:
        """Give the token of a value the value's own name; returns the node that made it of all tokens, which goes."""
        if value is None or value in self.whole:
            return None
        if value not in self._known or self.readers[value] != 1 or self.place is not None:
            raise _Unknown
        for node in self.made:
            for names in (node.input, node.output):
                names[:] = [value if name == self._known[value] else name for name in names]
        return self.makers[value]

    def token(self, value: str) -> str:
        """The pooled token (batch, 1, d) of a value (batch, tokens, d)."""
        return self._once(value, self._token)

    def _token(self, value: str, name: str) -> str:
        if value in self.whole:
            return self._chosen(value, name)
        node = self._maker(value)
        if node.op_type in ELEMENTWISE:
            return self._again(node, self._inputs(node.input, self.token), name)
        if node.op_type in BY_TOKEN and treats_alike(node, self.fixed):
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
                return self.node("Reshape", [together, self.constant([0, 0, -1])], name)
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
        if self.place is None:
            return self._first(value, 1, name)
        chosen = self.node("GatherND", [value, self.place], f"{name}_chosen")
        return self.node("Unsqueeze", [chosen, self.constant([1])], name)

    def _first(self, value: str, axis: int, name: str) -> str:
        """The tokens that are computed, of the first on, along the axis of tokens."""
        if COMPUTED not in self.constants:
            if self._name(COMPUTED) != COMPUTED:
                raise _Unknown
            self.constants[COMPUTED] = numpy_helper.from_array(np.array([1], np.int64), COMPUTED)
        return self.node("Slice", [value, self.constant([0]), COMPUTED, self.constant([axis])], name)

    def row(self, value: str) -> str:
        """The row (batch, heads, 1, d) that belongs to the pooled token of a value (batch, heads, tokens, d)."""
        return self._once(value, self._row)

    def _row(self, value: str, name: str) -> str:
        node = self._maker(value)
        if node.op_type == "Transpose" and option(node, "perm", []) == HEADS_APART:
            return self._row_of_heads(value, node.input[0], name)
        if value in self.whole or not any(each.op_type in _PRODUCTS for each in self._before(value)):
            return self._row_of_mask(value, name)
        if node.op_type == "Softmax" and option(node, "axis", -1) in (-1, 3):
            return self._again(node, [self.row(node.input[0])], name)
        if node.op_type == "ReduceMax" and self._reduces_last(node):
            return self._again(node, [self.row(node.input[0]), *node.input[1:]], name)
        if node.op_type in ELEMENTWISE:
            return self._again(node, self._inputs(node.input, self.row), name)
        if node.op_type in _PRODUCTS and not option(node, "transA", 0):
            return self._again(node, [self.row(node.input[0]), node.input[1]], name)
        raise _Unknown

    def _row_of_heads(self, value: str, together: str, name: str) -> str:
        """Of a value whose heads were put apart, from one (batch, tokens, heads, d)."""
        if self.place is None:
            return self._first(value, 2, name)
        chosen = self.node("GatherND", [together, self.place], f"{name}_chosen")
        return self.node("Unsqueeze", [chosen, self.constant([2])], name)

    def _row_of_mask(self, value: str, name: str) -> str:
        """Of a mask, or of whatever is there for all tokens: (batch or 1, heads or 1, tokens, d)."""
        shape = self.shapes.of.get(value, [])
        if self.place is None:
            if len(shape) != 4:
                raise _Unknown
            return self._first(value, 2, name)
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


def treats_alike(node: onnx.NodeProto, fixed: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether all but the first input of a node of `BY_TOKEN` are weights, and the same for all tokens."""
    if node.op_type == "LayerNormalization" and option(node, "axis", -1) not in (-1, 2):
        return False
    if node.op_type == "MatMul" and (node.input[1] not in fixed or len(fixed[node.input[1]].dims) != 2):
        return False
    return all(not each or each in fixed for each in node.input[1:])


def chooses_in_order(place: str, makers: Mapping[str, onnx.NodeProto], fixed: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether places are pairs of a sample's number, in order, and a token of it."""
    pairs = makers.get(place)
    if pairs is None or pairs.op_type != "Concat" or len(pairs.input) != 2 or option(pairs, "axis", 0) not in (1, -1):
        return False
    number = makers.get(pairs.input[0])
    count = makers.get(number.input[0]) if number is not None and number.op_type == "Unsqueeze" else None
    if count is None or count.op_type != "Range":
        return False
    start, step = (fixed.get(count.input[at]) for at in (0, 2))
    return (
        start is not None
        and step is not None
        and [int(numpy_helper.to_array(each)) for each in (start, step)] == [0, 1]
    )
