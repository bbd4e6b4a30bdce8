"""The opset has every type that the file uses."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT003"
WHY = "a reader of an older opset misreads the type, or refuses it"

_FIRST = {
    TensorProto.INT8: 13, TensorProto.FLOAT8E4M3FN: 19, TensorProto.FLOAT8E5M2: 19, TensorProto.BFLOAT16: 13,
    TensorProto.INT4: 21, TensorProto.FLOAT4E2M1: 23,
}  # fmt: skip


def find(view: View) -> Iterator[Finding]:
    """Values of a type that came later than the declared opset."""
    for name, kind in view.types.items():
        first = _FIRST.get(kind, 0)
        if view.opset < first and (name in view.readers or name in view.makers):
            told = TensorProto.DataType.Name(kind)
            yield Finding(ID, name, f"{told} needs opset {first}, the file declares {view.opset}")
    for node in view.nodes("LayerNormalization"):
        if view.opset < 17:
            yield Finding(ID, node.name, f"LayerNormalization needs opset 17, the file declares {view.opset}")
