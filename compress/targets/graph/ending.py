"""Texts cut where the longest of a batch ends: behind a causal mask no token sees the padding after it.

A text tower that pools the token that ends a text needs nothing of what stands behind it, and many tokenizers fill up
to the length of the model: a caption of a dozen tokens then costs as much as one of 77. The place of the last token
that is pooled is in the graph already, so ids and masks are cut there before anything reads them.

That a tower is causal is proved, not believed. What mixes tokens must be an attention, and its mask must hide all that
comes later; the mask, and whatever else depends on places, is computed for a text and for its beginning, where it must
say the same. All else that stands between the embeddings and the pooled token must treat tokens one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.data.runtime import CUT
from compress.models.attention_operator import says_no_more
from compress.models.graph import array, drop_unused, initializers, reads
from compress.models.shape_inference import Shapes, option
from compress.models.surgery import free
from compress.targets.graph.masking import BELOW
from compress.targets.graph.pooling import BY_TOKEN, ELEMENTWISE, chooses_in_order, treats_alike
from compress.targets.graph.session import open_session, run

_SIZES = _WHOLE, _CUT = 9, 5
_END: Final = 3
"""Tokens of the texts that prove it, and of their beginnings; the place where the longest of them ends."""

_HIDDEN: Final = -0.99 * BELOW
"""How far below the largest of its row a mask pushes what it hides, at least."""

_LARGEST: Final = 90
"""An id that is larger than all others of the texts that prove it."""

_SAME_TOKENS: Final = {"Cast", "Identity", "Reshape"}
_LOOKUPS: Final = {"Gather": (1, 0), "GatherBlockQuantized": (1, 0)}
"""Where a lookup in a table takes its indices and its table."""


class _Unknown(Exception):
    """The graph has another form than those that are known."""


def cut_after_end(model: onnx.ModelProto) -> None:
    """Cut, in place, ids and masks behind the last token that is pooled; nothing where that is not proved harmless."""
    pooled = next((node for node in reversed(model.graph.node) if node.op_type == "GatherND"), None)
    if pooled is None or option(pooled, "batch_dims", 0):
        return
    text = _Text.of(model, pooled.input[1])
    try:
        text.prove()
    except (_Unknown, UsageError):  # or a graph that does not run for texts as short as those that prove it
        return
    text.cut()


@dataclass
class _Text:
    """What is known of a text tower; `place` holds pairs of a sample's number and its pooled token."""

    model: onnx.ModelProto
    place: str
    makers: dict[str, onnx.NodeProto]
    fixed: dict[str, onnx.TensorProto]
    shapes: Shapes
    given: list[str]
    ids: str = ""
    tokens: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)
    aside: dict[str, str] = field(default_factory=dict)
    """Values made without embeddings that meet tokens, and how: as the mask of all or of one query, or otherwise."""

    @classmethod
    def of(cls, model: onnx.ModelProto, place: str) -> _Text:
        """For the places that the graph looks up."""
        fixed = initializers(model)
        makers = {name: node for node in model.graph.node for name in node.output}
        shapes = Shapes(model)
        given = [each.name for each in model.graph.input if each.name not in fixed]
        return cls(model, place, makers, fixed, shapes, given)

    def prove(self) -> None:
        """Raise _Unknown unless the pooled tokens are the same without what stands behind the last of them."""
        alike = {tuple(self.shapes.of[name]) for name in self.given}
        (shape,) = alike if len(alike) == 1 else [()]
        if len(shape) != 2:
            raise _Unknown
        if not chooses_in_order(self.place, self.makers, self.fixed):
            raise _Unknown
        for node in self.model.graph.node:
            if self._embeds(node):
                self.tokens.update(node.output)
            elif {*self.tokens, *self.chosen}.intersection(reads(node)):
                self._follow(node)
        returned = {each.name for each in self.model.graph.output}
        if not self.tokens or not returned <= self.chosen:
            raise _Unknown
        self._prove_aside()

    def _embeds(self, node: onnx.NodeProto) -> bool:
        """Whether a node looks the ids of the text up in a table."""
        if node.op_type not in _LOOKUPS or option(node, "axis", option(node, "gather_axis", 0)) != 0:
            return False
        at, table = _LOOKUPS[node.op_type]
        ids = node.input[at]
        while ids in self.makers and self.makers[ids].op_type in _SAME_TOKENS:
            if self.shapes.of.get(ids) != self.shapes.of[self.given[0]]:
                return False
            ids = self.makers[ids].input[0]
        if ids not in self.given or node.input[table] not in self.fixed or self.ids not in ("", ids):
            return False
        self.ids = ids
        return True

    def _follow(self, node: onnx.NodeProto) -> None:
        """Learn what a node makes of tokens, all or the chosen ones. Raises _Unknown where that is not known."""
        read = [name for name in node.input if name]
        if not self.tokens.intersection(reads(node)):
            self.chosen.update(node.output)  # of one token a sample, or less: nothing there has the length of a text
            for name in set(read) - self.chosen - set(self.fixed):
                self._meets(name, "otherwise")
        elif node.op_type == "GatherND":
            if list(node.input) != [read[0], self.place] or option(node, "batch_dims", 0):
                raise _Unknown
            self.chosen.update(node.output)
        elif node.op_type == "Attention":
            self._mix(node)
        elif node.op_type in BY_TOKEN and treats_alike(node, self.fixed) and read[0] in self.tokens:
            self.tokens.update(node.output)
        elif node.op_type in ELEMENTWISE and not self.chosen.intersection(read):
            for name in set(read) - self.tokens:
                if name not in self.fixed:
                    self._meets(name, "otherwise")
                elif len(self.fixed[name].dims) > 1:
                    raise _Unknown
            self.tokens.update(node.output)
        else:
            raise _Unknown

    def _mix(self, node: onnx.NodeProto) -> None:
        query, *others = node.input[:3]
        if not says_no_more(node) or len(node.input) < 4 or not self.tokens.issuperset(others):
            raise _Unknown
        mask = node.input[3]
        if not mask or {*self.tokens, *self.chosen}.intersection([mask]):
            raise _Unknown
        if query not in self.tokens and query not in self.chosen:
            raise _Unknown
        self._meets(mask, "mask" if query in self.tokens else "mask of one")
        (self.tokens if query in self.tokens else self.chosen).update(node.output)

    def _meets(self, name: str, how: str) -> None:
        """Note how a value that is made without embeddings meets tokens, which it does in one way."""
        if self.aside.setdefault(name, how) != how:
            raise _Unknown

    def _prove_aside(self) -> None:
        """Compute what depends on places alone, for texts and for their beginnings."""
        names, end = [*self.aside, self.place], self._end()
        session = open_session(self._part(names))
        for mask in _masks():
            feed = {name: _ids(mask, end) if name == self.ids else mask for name in self.given}
            whole, cut = (run(session, names, {name: each[:, :size] for name, each in feed.items()}) for size in _SIZES)
            for how, long, short in zip(self.aside.values(), whole, cut, strict=False):
                _compare(how, long, short)
            if not all(np.array_equal(found[-1], [[0, _END], [1, _END - 2]]) for found in (whole, cut)):
                raise _Unknown

    def _end(self) -> int:
        """The id that the graph compares with to find the end; the largest where it takes that."""
        for node in self._before([self.place]):
            for name in node.input if node.op_type == "Equal" else ():
                if name in self.fixed and int(np.prod(self.fixed[name].dims)) == 1:
                    return int(array(self.fixed[name]).reshape(-1)[0])
        return _LARGEST

    def _before(self, names: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes that values come from, in the order of the graph."""
        wanted, found = set(names), []
        for node in reversed(self.model.graph.node):
            if wanted.intersection(node.output):
                wanted.update(reads(node))
                found.append(node)
        return found[::-1]

    def _part(self, names: Sequence[str]) -> onnx.ModelProto:
        """A graph of the nodes that make some values alone."""
        nodes = self._before(names)
        read = {name for node in nodes for name in reads(node)}
        weights = [numpy_helper.from_array(array(each), name) for name, each in self.fixed.items() if name in read]
        inputs = [each for each in self.model.graph.input if each.name in self.given]
        outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)]
        graph = helper.make_graph(nodes, "aside", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)

    def cut(self) -> None:
        """Rewrite the graph: places are found in the whole texts, everything else reads their beginnings."""
        graph, found = self.model.graph, self._before([self.place])
        whole = {name: free(self.model, f"{name}_of_all") for node in found for name in node.output if name}
        short = {name: free(self.model, f"{name}_{CUT}") for name in self.given}
        kept = [_renamed(node, whole) for node in found]
        read = {**short, self.place: whole[self.place]}
        for node in graph.node:
            node.input[:] = [read.get(name, name) for name in node.input]
        nodes = [*kept, *self._slices(short, whole[self.makers[self.place].input[1]]), *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        drop_unused(graph)

    def _slices(self, short: Mapping[str, str], ends: str) -> Iterator[onnx.NodeProto]:
        """The inputs up to the last of the pooled tokens."""
        last, length, zero, one = (free(self.model, f"text_{word}") for word in ("last", "length", "first", "axis"))
        for name, value in ((zero, 0), (one, 1)):
            self.model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        yield helper.make_node("ReduceMax", [ends, zero], [last], name=last, keepdims=0)
        yield helper.make_node("Add", [last, one], [length], name=length)
        for name, made in short.items():
            yield helper.make_node("Slice", [name, zero, length, one], [made], name=made)


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """The same node with other names for values."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [names.get(name, name) for name in node.input]
    made.output[:] = [names.get(name, name) for name in node.output]
    made.name = made.output[0]
    return made


def _ids(mask: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Ids of texts that end at `_END` and before, and have others behind."""
    made = np.arange(mask.size, dtype=np.int64).reshape(mask.shape) % 7 + 4
    made[made == end] = 11
    made[0, _END], made[1, _END - 2] = end, end
    return made


def _masks() -> Iterator[NDArray[np.int64]]:
    """Masks of two texts: all tokens count, none does behind the end, and one before it does not."""
    every = np.ones((2, _WHOLE), np.int64)
    yield every
    padded = every.copy()
    padded[0, _END + 1 :], padded[1, _END - 1 :] = 0, 0
    yield padded
    holed = padded.copy()
    holed[0, 1] = 0
    yield holed


def _compare(how: str, whole: NDArray[np.generic], cut: NDArray[np.generic]) -> None:
    """Raise _Unknown unless beginnings of texts make the beginning of a value, and a mask hides what comes later."""
    if whole.ndim != cut.ndim:
        raise _Unknown
    beginning = whole[tuple(slice(size) for size in cut.shape)]
    pairs = zip(whole.shape, cut.shape, strict=True)
    if not all(long == short or (long, short) == (_WHOLE, _CUT) for long, short in pairs):
        raise _Unknown
    if not np.array_equal(beginning, cut):
        raise _Unknown
    if how == "otherwise":
        return
    if whole.ndim != 4 or whole.shape[-1] != _WHOLE or whole.dtype.kind != "f":
        raise _Unknown
    if how == "mask" and whole.shape[-2] != _WHOLE:
        raise _Unknown
    rows = whole.astype(np.float64)
    largest = rows.max(axis=-1, keepdims=True)
    if how == "mask":
        later = np.arange(_WHOLE) > np.arange(_WHOLE)[:, None]
    else:
        later = (np.arange(_WHOLE) > np.array([[_END], [_END - 2]])).reshape(2, 1, 1, _WHOLE)
    if np.any((rows > largest - _HIDDEN) & later):
        raise _Unknown
