"""What makes an exported student one that can learn: weights of its own in every place, under the names they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from compress.models.graph import array, initializers

_MARK: Final = 0.02
"""Spread of what is added to every weight for the export."""


def marked(real: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of which no two are equal: the exporter joins those that are, and they could not learn apart."""
    noise = torch.Generator().manual_seed(0)
    return {
        name: value + _MARK * torch.randn(value.shape, generator=noise) if value.is_floating_point() else value
        for name, value in real.items()
    }


def placed(graph: onnx.ModelProto, marked: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> dict[str, str]:
    """Put the real weights in the places of the marked ones, in place; returns the new names of initializers.

    An initializer is called as the weight is, one that holds it transposed so that it says so.
    """
    places: dict[bytes, tuple[str, bool]] = {}
    for name, value in marked.items():
        if value.is_floating_point():
            if value.ndim == 2:
                places[value.T.contiguous().numpy().tobytes()] = name, True
            places[value.contiguous().numpy().tobytes()] = name, False
    renamed: dict[str, str] = {}
    for old, tensor in initializers(graph).items():
        found = places.get(array(tensor).tobytes()) if tensor.data_type == onnx.TensorProto.FLOAT else None
        if found is None:
            continue
        name, turned = found
        value = real[name].T if turned else real[name]
        called = f"{name}_t" if turned else name
        values = value.contiguous().numpy().reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), called))
        renamed[old] = called
    for node in graph.graph.node:
        for at, read in enumerate(node.input):
            node.input[at] = renamed.get(read, read)
    return renamed


def told_apart(graph: onnx.ModelProto, called: Mapping[str | None, str | None]) -> None:
    """Give every value inside of the graph a name that no teacher's has: equal ones mean blocks left standing.

    `called` says what those are called that are known outside.
    """
    inside = [name for node in graph.graph.node for name in node.output if name]
    new = {name: called.get(name) or f"student.{name}" for name in inside}
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = new.get(name, name)
