"""The attention of a block as a graph computes it: its products, and the reshapes that cut them into heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.graph import array, initializers
from compress.models.junctions import node_named
from compress.models.surgery import free
from compress.models.tower import Site, Tower

_PASSED: Final = {"Transpose", "Reshape", "Mul", "Div", "Add", "Softmax", "Cast", "Where", "Identity"}


@dataclass(frozen=True, slots=True)
class Branch:
    """A product before or behind the attention, and the Reshape between them; None where there is one head."""

    site: Site
    reshape: str | None


@dataclass(frozen=True, slots=True)
class Attention:
    """Query, key, value and output of a layer; `heads`, and what one head has of queries and of values."""

    query: Branch
    key: Branch
    value: Branch
    output: Branch
    heads: int
    query_width: int
    value_width: int


def attention(tower: Tower, sites: Sequence[Site]) -> Attention:
    """The attention that the sites of one layer make. Raises UsageError where the graph is none that is known."""
    outs = [site for site in sites if site.role == "attn.out"]
    products = {site.node: site for site in sites if site.role == "attn.qkv"}
    if len(outs) != 1 or len(products) != 3:
        names = ", ".join(site.name for site in sites)
        raise UsageError(f"this layer has no attention of q, k, v and one output: {names}", "towers", "exclude it")
    back = _Back(tower, products)
    mixed, reshape = back.to_product(node_named(tower.graph.graph, outs[0].node).input[0], outs[0])
    scores, _ = back.to_product(mixed.input[0], outs[0])
    query, key = (back.to_site(name, outs[0]) for name in scores.input)
    value = back.to_site(mixed.input[1], outs[0])
    output = Branch(outs[0], reshape)
    widths = [_head_width(tower, branch) for branch in (query, key, value)]
    heads = [branch.site.shape[1] // width for branch, width in zip((query, key, value), widths, strict=True)]
    whole = all(width * heads[0] == each.site.shape[1] for each, width in zip((query, key, value), widths, strict=True))
    if len(set(heads)) > 1 or widths[0] != widths[1] or not whole or heads[0] * widths[2] != outs[0].shape[0]:
        raise UsageError(f"queries, keys and values are cut into {heads} heads of {widths}", outs[0].name, "exclude it")
    return Attention(query, key, value, output, heads[0], widths[0], widths[2])


@dataclass(frozen=True, slots=True)
class _Back:
    """Walks back from a value, through everything that keeps its rows."""

    tower: Tower
    products: dict[str, Site]

    def to_product(self, name: str, where: Site) -> tuple[onnx.NodeProto, str | None]:
        """The product of two activations that a value comes from, and the Reshape passed on the way."""
        node, reshape = self._step(name, where)
        if node.name in self.products:
            raise _unknown(where)
        return node, reshape

    def to_site(self, name: str, where: Site) -> Branch:
        """The weighted product that a value comes from, and the Reshape passed on the way."""
        node, reshape = self._step(name, where)
        if node.name not in self.products:
            raise _unknown(where)
        return Branch(self.products[node.name], reshape)

    def _step(self, name: str, where: Site) -> tuple[onnx.NodeProto, str | None]:
        makers = {each: node for node in self.tower.graph.graph.node for each in node.output}
        tensors, reshape = initializers(self.tower.graph), None
        while name in makers:
            node = makers[name]
            if node.op_type == "MatMul":
                return node, reshape
            if node.op_type not in _PASSED:
                break
            if node.op_type == "Reshape":
                reshape = node.name if reshape is None else reshape
            name = next((each for each in node.input if each not in tensors), "")
        raise _unknown(where)


def _unknown(where: Site) -> UsageError:
    return UsageError("the attention before this product is none that is known", where.name, "exclude this layer")


def _head_width(tower: Tower, branch: Branch) -> int:
    """Columns of one head: the last size that the Reshape asks for; all of them where there is none."""
    if branch.reshape is None:
        return branch.site.shape[1]
    last = shape_of(tower, branch.reshape)[-1]
    if not isinstance(last, int) or last < 1:
        raise _unknown(branch.site)
    return last


def shape_of(tower: Tower, reshape: str) -> list[int | str]:
    """The shape that a Reshape asks for: numbers, and names of values that are known only when it runs."""
    tensors = initializers(tower.graph)
    asked = node_named(tower.graph.graph, reshape).input[1]
    if asked in tensors:
        return [int(size) for size in array(tensors[asked])]
    maker = next((node for node in tower.graph.graph.node if asked in node.output), None)
    if maker is None or maker.op_type != "Concat":
        return [asked]
    shape: list[int | str] = []
    for name in maker.input:
        shape += [int(size) for size in array(tensors[name])] if name in tensors else [name]
    return shape


def reshape_to(tower: Tower, reshape: str, heads: int, width: int | None) -> None:
    """Let a Reshape cut into `heads` of `width`; with None, join them, `heads` being all columns."""
    model = tower.graph
    shape = shape_of(tower, reshape)
    wanted = {-1: heads} if width is None else {-1: width, -2: heads}
    for at, size in wanted.items():
        if shape[at] != -1:
            if not isinstance(shape[at], int):
                raise UsageError("the shape of the heads is computed while it runs", reshape, "exclude this layer")
            shape[at] = size
    node = node_named(model.graph, reshape)
    name = free(model, f"{reshape}_shape")
    if all(isinstance(size, int) for size in shape):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    else:
        names = [size if isinstance(size, str) else _size(model, size) for size in shape]
        place = next(at for at, each in enumerate(model.graph.node) if each.name == reshape)
        joined = helper.make_node("Concat", names, [name], name=free(model, f"{reshape}_concat"), axis=0)
        nodes = [*model.graph.node[:place], joined, *model.graph.node[place:]]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        node = node_named(model.graph, reshape)
    node.input[1] = name


def _size(model: onnx.ModelProto, size: int) -> str:
    name = f"size_{size}"
    if name not in initializers(model):
        model.graph.initializer.append(numpy_helper.from_array(np.array([size], np.int64), name))
    return name
