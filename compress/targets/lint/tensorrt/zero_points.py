"""Quantization is symmetric: every zero point is 0, and no integer is unsigned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT001"
WHY = "TensorRT knows a scale and nothing else"

_UNSIGNED = {"UINT8", "UINT4", "UINT16", "INT16"}


def find(view: View) -> Iterator[Finding]:
    """Zero points other than 0, and types that TensorRT does not quantize to."""
    for node in view.nodes("QuantizeLinear", "DequantizeLinear"):
        name = node.input[2] if len(node.input) > 2 else ""
        kind = view.types.get(name or (node.output if node.op_type == "QuantizeLinear" else node.input)[0])
        told = TensorProto.DataType.Name(kind) if kind else ""
        if told in _UNSIGNED:
            yield Finding(ID, node.name, f"quantizes to {told}, which TensorRT does not know")
        if not name:
            continue
        zero = view.array(name)
        if zero is None:
            yield Finding(ID, node.name, f"its zero point {name!r} is no constant of this file")
        elif zero.astype(np.float32).any():
            yield Finding(ID, node.name, f"its zero point {name!r} is not 0")
