"""Integers are told by Q/DQ alone."""

from __future__ import annotations

from collections.abc import Iterator

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT006"
WHY = "the parser takes no operator that computes on integers, and no scale that is made at run time"

_NONE_OF = {
    "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
    "QLinearMatMul", "QLinearConv", "QLinearAdd", "QLinearMul",
}  # fmt: skip


def find(view: View) -> Iterator[Finding]:
    """Operators on integers, whatever their domain."""
    for node in view.nodes():
        if node.op_type in _NONE_OF or node.op_type.startswith("QLinear"):
            yield Finding(ID, node.name, f"{node.op_type} has to be written as QuantizeLinear and DequantizeLinear")
