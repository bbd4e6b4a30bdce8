"""Graphs changed for a test."""

import onnx


def shown(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy with one more output."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.output.append(onnx.ValueInfoProto(name=name))
    return made
