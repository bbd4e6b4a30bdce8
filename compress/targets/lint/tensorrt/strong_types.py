"""Where floats meet they are of one type: what converts is a Cast."""

from __future__ import annotations

from collections.abc import Iterator

from compress.targets.graph.types import FLOATS
from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT009"
WHY = "in a strongly typed network nothing converts by itself"

_MEETING = {
    "Add", "Sub", "Mul", "Div", "Pow", "MatMul", "Gemm", "Conv", "Concat", "Max", "Min", "Equal", "Less", "Greater",
    "LayerNormalization", "Where", "PRelu",
}  # fmt: skip


def find(view: View) -> Iterator[Finding]:
    """Operators that read floats of several types, and Q/DQ whose scale has another type than what they scale."""
    if view.contradiction:
        yield Finding(ID, view.model.graph.name or "graph", f"its types cannot be inferred: {view.contradiction}")
    for node in view.nodes():
        kinds = {FLOATS[kind] for name in node.input if (kind := view.types.get(name)) in FLOATS}
        if node.op_type in _MEETING and len(kinds) > 1:
            yield Finding(ID, node.name, f"{node.op_type} reads {' and '.join(sorted(kinds))}")
        elif node.op_type == "QuantizeLinear" and len(kinds) > 1:
            yield Finding(ID, node.name, f"scales a value of one type by one of another: {' and '.join(sorted(kinds))}")
