"""Counting what a graph contains: what the treatments planned, what the file holds, what the runtime makes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import onnx
from onnx import helper

from compress.models import reference
from compress.models.graph import initializers
from compress.models.tower import Tower
from compress.models.treatment import BlockWeights, Float16, StaticFloat8, StaticInt8
from compress.targets.graph.emitter import LEVELS, grid

_SCALES = {
    "MatMulNBits": slice(2, 3), "GatherBlockQuantized": slice(2, 3), "MatMulIntegerToFloat": slice(2, 4),
    "QuantizeLinear": slice(1, 2), "DequantizeLinear": slice(1, 2),
}  # fmt: skip
"""Where an operator reads its scales."""

ROUNDED = ", inputs in int8"
"""What is said of a product that rounds its input in blocks as it runs."""

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
_INTEGERS = {onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT4}


def planned(tower: Tower) -> dict[str, str]:
    """What the emitted file has to contain, by kind of weight."""
    counts: Counter[str] = Counter()
    nodes = {node.name: node for node in tower.graph.graph.node}
    for site in tower.sites:
        held = tower.treatments.get(site.name)
        table = site.op == "Gather"
        if isinstance(held, BlockWeights):
            kernel = site.op == "Conv" and grid(tower.graph, nodes[site.node], site) is None
            kind = "table" if table else "kernel" if kernel else "product"
            rounded = kind == "product" and held.compute == "int8"
            counts[_blocks(kind, held.bits, held.block) + (ROUNDED if rounded else "")] += 1
        elif isinstance(held, StaticInt8):
            counts["int8 static product"] += 1
        elif isinstance(held, StaticFloat8):
            counts["fp8 static product"] += 1
        elif isinstance(held, Float16):
            counts["fp16 table" if table else "fp16 product"] += 1
        else:
            counts["float table" if table else "float product"] += 1
    return {name: str(count) for name, count in sorted(counts.items())}


def found(model: onnx.ModelProto, tower: Tower) -> dict[str, str]:
    """What a file contains, counted from its nodes and the sizes of its weights, by kind of weight.

    Only untreated sites are looked for among the float nodes: a graph has other tables and products besides.
    """
    tensors = initializers(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    untreated = {site.weight for site in tower.sites}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type in {"MatMulNBits", "GatherBlockQuantized"}:
            kind, codes = ("product", 1) if node.op_type == "MatMulNBits" else ("table", 0)
            whole = _whole(tensors.get(node.input[codes]), tensors.get(node.input[2]), options)
            rounded = options.get("accuracy_level") == LEVELS["int8"]
            name = _blocks(kind, options["bits"], options["block_size"]) + (ROUNDED if rounded else "")
            counts[name + ("" if whole else " (wrong size)")] += 1
        elif node.op_type == "Conv" and (held := _kernel(node, makers, tensors)) is not None:
            counts[held] += 1
        elif _is_static_int8(node, makers, tensors):
            counts["int8 static product"] += 1
        elif node.op_type == "MatMul" and _is_half(node.input[1], makers, tensors, untreated):
            counts["fp16 product"] += 1
        elif node.op_type == "Gather" and _is_half(node.input[0], makers, tensors, untreated):
            counts["fp16 table"] += 1
        elif node.op_type in {"MatMul", "Conv"} and _float_weight(node.input[1], tensors, untreated):
            counts["float product"] += 1
        elif node.op_type == "Gather" and _float_weight(node.input[0], tensors, untreated):
            counts["float table"] += 1
    return {name: str(count) for name, count in sorted(counts.items())}


def parts(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of a file by what they are for: integer weights, scales, float weights, and the graph itself."""
    scales = {name for node in model.graph.node for name in node.input[_SCALES.get(node.op_type, slice(0))]}
    sums: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        size = reference.nbytes(tensor)
        if tensor.data_type in _FLOATS:
            sums["scales" if tensor.name in scales else "float weights"] += size
        elif tensor.data_type in _INTEGERS:
            sums["integer weights"] += size
        elif tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN:
            sums["8-bit float weights"] += size
        else:
            sums["graph"] += size
    inside = sum(reference.nbytes(each) for each in model.graph.initializer if not reference.is_reference(each))
    sums["graph"] += model.ByteSize() - inside
    return dict(sums)


def _blocks(kind: str, bits: int, block: int) -> str:
    return f"int{bits} {kind} in blocks of {block}"


def _kernel(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto]
) -> str | None:
    """How the kernel of a convolution is stored where the graph unpacks it from integers; None where it does not."""
    steps = list(_upwards(node.input[1], makers))
    codes = [tensor for step in steps for name in step.input if (tensor := tensors.get(name)) and len(tensor.dims) == 3]
    integers = [each for each in codes if each.data_type == onnx.TensorProto.UINT8 and each.dims[2] > 1]
    scales = [each for each in codes if each.data_type in _FLOATS]
    if not integers or len({each.name for each in integers}) > 1 or len(scales) != 1:
        return None
    rows, blocks, length = integers[0].dims
    bits = 4 if any(step.op_type == "BitShift" for step in steps) else 8
    whole = len(integers[0].raw_data) == rows * blocks * length > 0 and list(scales[0].dims) == [rows, blocks, 1]
    return _blocks("kernel", bits, length * 8 // bits) + ("" if whole else " (wrong size)")


def _upwards(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes that a value is computed from; each once."""
    queue, seen = [name], set()
    while queue:
        node = makers.get(queue.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            yield node
            queue.extend(node.input)


def _whole(codes: onnx.TensorProto | None, scales: onnx.TensorProto | None, options: Mapping[str, int]) -> bool:
    """Whether the packed weight has exactly the bytes, and the blocks exactly the scales, that its node promises."""
    if codes is None or scales is None or codes.data_type != onnx.TensorProto.UINT8:
        return False
    size, bits, held = options["block_size"], options["bits"], len(codes.raw_data)
    if "K" in options:  # a product: blocks are padded
        blocks = options["N"] * -(-options["K"] // size)
        return held == blocks * size * bits // 8 and math.prod(scales.dims) == blocks
    rows, width = codes.dims if len(codes.dims) == 2 else (0, 0)
    blocks = rows * -(-(width * 8 // bits) // size)
    return held == rows * width > 0 and math.prod(scales.dims) == blocks


def _is_static_int8(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto]
) -> bool:
    """Whether a node is the product of a uint8 value and an int8 weight, in one operator or between two of its own."""
    if node.op_type == "MatMulIntegerToFloat":
        weight, zero = node.input[1], node.input[4] if len(node.input) > 4 else ""
    elif node.op_type == "MatMul":
        sides = [makers.get(name) for name in node.input]
        dequantized = [side for side in sides if side is not None and side.op_type == "DequantizeLinear"]
        if len(dequantized) != 2:
            return False
        weight, zero = dequantized[1].input[0], dequantized[0].input[2] if len(dequantized[0].input) > 2 else ""
    else:
        return False
    wanted = {weight: onnx.TensorProto.INT8, zero: onnx.TensorProto.UINT8}
    return all(name in tensors and tensors[name].data_type == kind for name, kind in wanted.items())


def _is_half(
    name: str, makers: Mapping[str, onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto], sites: set[str]
) -> bool:
    """Whether a value is a site's weight in half precision, read directly or cast to float."""
    maker = makers.get(name)
    stored = tensors.get(maker.input[0] if maker is not None and maker.op_type == "Cast" else name)
    return (
        stored is not None
        and stored.data_type == onnx.TensorProto.FLOAT16
        and stored.name.removesuffix("_fp16") in sites
    )


def _float_weight(name: str, tensors: Mapping[str, onnx.TensorProto], sites: set[str]) -> bool:
    return name in sites and name in tensors and tensors[name].data_type in _FLOATS
