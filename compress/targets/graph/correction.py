"""What a treatment adds to a product, as one addition with the bias that is there already."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from compress.models.graph import array, initializers

UNCORRECTED: Final = "_uncorrected"
"""Ends the name of a product to which a correction is yet to be added."""


def merge_corrections(model: onnx.ModelProto) -> None:
    """Add corrections to biases: where the only reader of a corrected product adds a constant row, both become one."""
    graph = model.graph
    weights = initializers(model)
    returned = {value.name for value in graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    merged = []
    for node in graph.node:
        if node.op_type != "Add" or not node.input[0].endswith(UNCORRECTED):
            continue
        made, (product, correction) = node.output[0], node.input
        reading = readers.get(made, [])
        if len(reading) != 1 or reading[0].op_type != "Add" or made in returned:
            continue
        bias = next((name for name in reading[0].input if name != made), "")
        if bias not in weights or list(weights[bias].dims) != list(weights[correction].dims):
            continue
        total = array(weights[bias]).astype(np.float32) + array(weights[correction]).astype(np.float32)
        weights[correction].CopyFrom(numpy_helper.from_array(total, correction))
        del reading[0].input[:]
        reading[0].input.extend([product, correction])
        merged.append(made)
    kept = [node for node in graph.node if not (node.op_type == "Add" and node.output[0] in merged)]
    del graph.node[:]
    graph.node.extend(kept)
