"""Graphs changed for a test."""

from collections.abc import Callable
from typing import Any

import onnx


def rewritten(model: onnx.ModelProto, rewrite: Callable[..., None], *options: Any) -> onnx.ModelProto:
    """A copy, rewritten in place."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rewrite(made, *options)
    return made


def shown(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy with one more output."""
    return rewritten(model, lambda made: made.graph.output.append(onnx.ValueInfoProto(name=name)))
