"""The census of files of the standard domain: products by how DequantizeLinear makes their weights."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import TensorProto, helper

from compress.models.graph import initializers
from compress.models.tower import Tower
from compress.models.treatment import BlockWeights
from compress.targets.graph import census

_STATIC = {TensorProto.INT8: "int8", TensorProto.FLOAT8E4M3FN: "fp8"}


def planned(tower: Tower) -> dict[str, str]:
    """What the emitted file has to contain, by kind of weight; 8-bit weights have a scale for each output."""
    told = census.planned(tower)
    per_output = [each for each in tower.treatments.values() if isinstance(each, BlockWeights) and each.bits == 8]
    for held in per_output:
        told.pop(f"int8 product in blocks of {held.block}", None)
    return dict(sorted({**told, **({_PER_OUTPUT: str(len(per_output))} if per_output else {})}.items()))


_PER_OUTPUT = "int8 product with a scale for each output"


def found(model: onnx.ModelProto, tower: Tower) -> dict[str, str]:
    """What a file contains, counted from its nodes, the types of its weights and the zero points of its inputs."""
    makers = {name: node for node in model.graph.node for name in node.output}
    counts: Counter[str] = Counter(
        {name: int(count) for name, count in census.found(model, tower).items() if not name.startswith("int8 static")}
    )
    for node in model.graph.node:
        if node.op_type != "MatMul":
            continue
        value, weight = (_dequantizes(makers.get(name)) for name in node.input)
        if weight is not None:
            counts[_kind(model, value, weight)] += 1
    return {name: str(count) for name, count in sorted(counts.items()) if count}


def _dequantizes(node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _kind(model: onnx.ModelProto, value: onnx.NodeProto | None, weight: onnx.NodeProto) -> str:
    tensors = initializers(model)
    codes, scales = tensors.get(weight.input[0]), tensors.get(weight.input[1])
    if codes is None or scales is None or len(codes.dims) != 2:
        return "product of an unknown weight"
    told = {item.name: helper.get_attribute_value(item) for item in weight.attribute}
    rows, columns = codes.dims
    if block := told.get("block_size", 0):
        whole = list(scales.dims) == [-(-rows // block), columns] and told.get("axis") == 0
        name = TensorProto.DataType.Name(codes.data_type).lower()
        return f"{name} product in blocks of {block}" + ("" if whole else " (wrong size)")
    if list(scales.dims) != [columns] or told.get("axis", 1) != 1:
        return "product with scales of a wrong size"
    if value is None:
        return _PER_OUTPUT
    zero = tensors.get(value.input[2]) if len(value.input) > 2 else None
    if zero is None or zero.data_type != codes.data_type:
        return "product of an input and a weight of two types"
    return f"{_STATIC.get(codes.data_type, 'unknown')} static product"
