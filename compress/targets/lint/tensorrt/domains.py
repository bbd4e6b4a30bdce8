"""Every operator is one of the standard domain, in the opset that the file declares."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT002"
WHY = "the parser knows no operator of another domain, unless a plug-in brings it"

_STANDARD = {"", "ai.onnx"}


def find(view: View) -> Iterator[Finding]:
    """Operators of other domains, and functions of the model's own."""
    for node in view.nodes():
        if node.domain not in _STANDARD:
            yield Finding(ID, node.name, f"{node.domain}.{node.op_type} is not of the standard domain")
        elif not _known(node.op_type, view.opset):
            yield Finding(ID, node.name, f"there is no {node.op_type} in opset {view.opset}")
    for function in view.model.functions:
        yield Finding(ID, function.name, "a function of the model's own is not inlined")


def _known(op: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(op, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False
