"""The padding mask of a text as an Unsqueeze, where an exporter wrote a lookup of every place of it.

Masks of transformers are functions of positions, so a traced one asks for (sample, key) one by one: two ranges, spread
over each other, stacked, and a GatherND whose answer is the mask itself with axes of length one put in. Eight nodes
cost little beside a layer, but they are the same few microseconds for one short text, whose layers cost little as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.models.graph import drop_unused
from compress.models.shape_inference import Shapes, Size, option
from compress.models.surgery import free


def read_padding_whole(model: onnx.ModelProto) -> None:
    """Replace, in place, each GatherND that reads all of its data in order; the others stay as they are."""
    lookups = [node for node in model.graph.node if node.op_type == "GatherND" and not option(node, "batch_dims", 0)]
    if not lookups:
        return
    places = _Places(model)
    found = [(node, axes) for node in lookups if (axes := places.put_in(node)) is not None]
    for node, axes in found:
        name = free(model, f"{node.output[0]}_axes")
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
        made = helper.make_node("Unsqueeze", [node.input[0], name], [node.output[0]], name=node.name)
        node.CopyFrom(made if axes else helper.make_node("Identity", made.input[:1], made.output, name=node.name))
    if found:
        drop_unused(model.graph)


class _Places:
    """Which places of what a GatherND asks for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.shapes = Shapes(model)

    def put_in(self, lookup: onnx.NodeProto) -> list[int] | None:
        """The axes of length one that the result has beside those of the data; None where it is not the data whole."""
        data, asked = (self.shapes.of.get(name, []) for name in lookup.input)
        stacked = self.makers.get(lookup.input[1])
        if stacked is None or stacked.op_type != "Concat" or option(stacked, "axis", 0) not in (-1, len(asked) - 1):
            return None
        counted = [found for name in stacked.input for found in self._counted(name)]
        axes, sizes = [axis for axis, _ in counted], [size for _, size in counted]
        if len(counted) < len(stacked.input) or sizes != data or None in sizes or axes != sorted(set(axes)):
            return None
        others = [at for at in range(len(asked) - 1) if at not in axes]
        whole = all(asked[at] == 1 for at in others) and all(asked[at] == size for at, size in counted)
        return others if whole else None

    def _counted(self, name: str) -> Iterator[tuple[int, Size]]:
        """The axis along which a value is 0, 1, 2 ..., the same along all others, and how long that axis is."""
        node = self.makers.get(name)
        shape = self.shapes.of.get(name)
        if node is None or shape is None:
            return
        if node.op_type == "Range" and shape[0] is not None:  # which says that it counts from 0 in ones
            yield 0, shape[0]
        for axis, size in self._counted(node.input[0]) if node.op_type in ("Unsqueeze", "Expand") else ():
            before = len(self.shapes.of[node.input[0]])
            if node.op_type == "Expand":
                yield axis + len(shape) - before, size
                continue
            new = {int(at) % len(shape) for at in self.shapes.holds[node.input[1]] if at is not None}
            yield [at for at in range(len(shape)) if at not in new][axis], size
