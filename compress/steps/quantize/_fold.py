"""Moving a scale per channel from what feeds a product into its weight, which leaves the float graph's answer as it is.

x W = (x / s) (diag(s) W): the division goes into the LayerNormalization before the product (SmoothQuant,
arXiv:2211.10438; AWQ, arXiv:2306.00978), or, for the product behind attention, into the value projection, because
attention only averages rows. It costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.models.graph import array, initializers
from compress.models.tower import Site, Tower

Scales = NDArray[np.float32]
_HEADS_APART = [0, 2, 1, 3]
"""(batch, rows, heads, width) to (batch, heads, rows, width), and back."""


@dataclass(frozen=True, slots=True)
class Source:
    """What feeds `sites`, all of them and nothing else, and can be divided: weights whose last axis is the channels."""

    sites: tuple[Site, ...]
    divided: tuple[str, ...]


def sources(tower: Tower, sites: Sequence[Site]) -> Iterator[Source]:
    """Where scales can be moved to for each value that feeds some of `sites`; values without such a place are left out.

    Every reader of the value, and of the weights behind it, has to be one of `sites`: a residual, or a layer that
    shares its weight, would see other numbers. A weight that a step has already turned into integers cannot be divided.
    """
    links = _Links(tower)
    held = {site.weight for site in tower.sites if site.name in tower.treatments}
    chosen = {site.node: site for site in sites if site.op == "MatMul"}
    for value in dict.fromkeys(links.nodes[name].input[0] for name in chosen):
        readers = links.readers(value)
        divided = links.norm(value) or links.value_projection(value)
        if not divided or held & set(divided) or value in links.outputs:
            continue
        if not all(node.name in chosen and node.input[0] == value for node in readers):
            continue
        found = tuple(chosen[node.name] for node in readers)
        if all(reader in readers for site in found for reader in links.readers(site.weight)):
            yield Source(found, divided)


def fold(tower: Tower, source: Source, scales: Scales) -> None:
    """Divide what feeds the sites by `scales` (in,) and multiply their weights (in, out) by it, in place.

    Raises ValueError for a scale that is not a finite positive number.
    """
    multiply(tower, source.sites, scales)
    factor = scales.astype(np.float64)
    for name in source.divided:
        _set(tower, name, lambda weight: weight / factor)


def multiply(tower: Tower, sites: Sequence[Site], scales: Scales) -> None:
    """Multiply the weights (in, out) of matrix products by `scales` (in,), in place.

    Raises ValueError for a scale that is not a finite positive number.
    """
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("scales must be finite and positive")
    factor = scales.astype(np.float64)
    for name in dict.fromkeys(site.weight for site in sites):
        _set(tower, name, lambda weight: weight * factor[:, None])


def _set(tower: Tower, name: str, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    tensor = initializers(tower.graph)[name]
    changed = change(array(tensor).astype(np.float64)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), name))


class _Links:
    """Who makes and who reads each value of a tower's graph."""

    def __init__(self, tower: Tower) -> None:
        self.graph = tower.graph.graph
        self.nodes = {node.name: node for node in self.graph.node}
        self.weights = initializers(tower.graph)
        self.made_by = {name: node for node in self.graph.node for name in node.output}
        self.read_by: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                self.read_by.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.graph.output}

    def readers(self, value: str) -> list[onnx.NodeProto]:
        return self.read_by.get(value, [])

    def norm(self, value: str) -> tuple[str, ...]:
        """Scale and bias of the LayerNormalization that makes a value, where they are weights of its own."""
        node = self.made_by.get(value)
        if node is None or node.op_type != "LayerNormalization" or value in self.outputs:
            return ()
        scale = self.weights.get(node.input[1])  # a scale of one axis: the norm is over the last one alone
        return self._own(node.input[1:]) if scale is not None and len(scale.dims) == 1 else ()

    def value_projection(self, value: str) -> tuple[str, ...]:
        """Weight and bias of the value projection whose mean by attention a value is."""
        attended = value if self._single(value, ("MatMul",)) else self._before(value, ("Reshape",), ("Transpose",))
        product = self.made_by.get(attended or "")
        if product is None or product.op_type != "MatMul" or self._weight(product.input[1]):
            return ()
        made: str | None = product.input[1]
        if not self._single(product.input[1], ("Add", "MatMul")):  # one head alone is not reshaped
            made = self._before(product.input[1], ("Transpose",), ("Reshape",))
        linear, bias = self.made_by.get(made or ""), ""
        if linear is not None and linear.op_type == "Add" and len(self.readers(linear.output[0])) == 1:
            bias = next((name for name in linear.input if self._weight(name)), "")
            if not bias:
                return ()  # a sum of two branches: dividing one of them would be wrong
            linear = self.made_by.get(next((name for name in linear.input if name != bias), ""))
        if linear is None or linear.op_type != "MatMul" or len(self.readers(linear.output[0])) != 1:
            return ()
        return self._own((linear.input[1], bias))

    def _single(self, value: str, ops: tuple[str, ...]) -> bool:
        return value in self.made_by and self.made_by[value].op_type in ops

    def _before(self, value: str, *ops: tuple[str, ...]) -> str | None:
        """The value before a chain of nodes that each have one reader; a transpose must swap heads and rows."""
        for allowed in ops:
            node = self.made_by.get(value)
            if node is None or node.op_type not in allowed or value in self.outputs:
                return None
            if node.op_type == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) != _HEADS_APART:
                return None
            value = node.input[0]
            if len(self.readers(value)) != 1:
                return None
        return value

    def _weight(self, name: str) -> bool:
        return name in self.weights

    def _own(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names, if each is a float weight that nothing else reads."""
        told = [name for name in names if name]
        alone = all(self._weight(name) and len(self.readers(name)) == 1 for name in told)
        return tuple(told) if told and alone else ()
