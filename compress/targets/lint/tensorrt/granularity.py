"""Weights have a scale for each output, int4 weights one for each block, activations one in all."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View, options

ID = "TRT005"
WHY = "TensorRT has kernels for these and no others"

_OUTPUT_AXIS = {"MatMul": -1, "Gemm": -1, "Conv": 0, "ConvTranspose": 1}
_BLOCKS = (64, 128)


def find(view: View) -> Iterator[Finding]:
    """Scales of another shape than TensorRT has kernels for."""
    for node in view.nodes("QuantizeLinear", "DequantizeLinear"):
        scale = view.tensors.get(node.input[1])
        if scale is None:
            yield Finding(ID, node.name, "its scale is no constant")
        elif node.op_type == "DequantizeLinear" and view.rounds_weight(node):
            yield from _weight(view, node, list(scale.dims))
        elif prod(scale.dims) != 1:
            yield Finding(ID, node.name, f"an activation has {prod(scale.dims)} scales, not one")


def _weight(view: View, node: onnx.NodeProto, scales: list[int]) -> Iterator[Finding]:
    weight, told = view.tensors[node.input[0]], options(node)
    shape, block = list(weight.dims), told.get("block_size", 0)
    if len(shape) < 2:
        yield Finding(ID, node.name, f"a constant of shape {shape} is quantized, which no kernel reads as a weight")
    elif weight.data_type == onnx.TensorProto.INT4:
        if block not in _BLOCKS or len(scales) != len(shape) or shape[told.get("axis", 1)] % block:
            yield Finding(ID, node.name, f"int4 comes in whole blocks of 64 or 128, not of {block or shape}")
    elif block:
        yield Finding(ID, node.name, "only int4 weights may come in blocks")
    elif len(scales) != 1 or scales[0] != shape[told.get("axis", 1)]:
        yield Finding(ID, node.name, "a weight has one scale for all of it, not one for each output")
    else:
        yield from _axis(view, node, told.get("axis", 1) % len(shape), len(shape))


def _axis(view: View, node: onnx.NodeProto, axis: int, rank: int) -> Iterator[Finding]:
    for reader in view.readers[node.output[0]]:
        wanted = _OUTPUT_AXIS.get(reader.op_type)
        if reader.op_type == "Gemm" and options(reader).get("transB"):
            wanted = 0
        if wanted is not None and axis != wanted % rank:
            yield Finding(ID, node.name, f"its scales lie along axis {axis}, which is not that of the outputs")
