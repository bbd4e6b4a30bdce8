"""Which element type every value of a graph has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
from onnx import helper, shape_inference

FLOATS: Final = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value whose type can be inferred, by name. Weights are not looked into."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    declared = {each.domain for each in model.opset_import}
    strange = sorted({node.domain for node in model.graph.node} - declared - {"ai.onnx"})
    bare.opset_import.extend(helper.make_opsetid(domain, 1) for domain in strange)  # or nothing would be inferred
    bare.graph.value_info.extend(_contributed(model))
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    bare.graph.input.extend(model.graph.input)
    given = {value.name for value in model.graph.input}
    bare.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.name not in given
    )
    inferred = shape_inference.infer_shapes(bare, check_type=False, strict_mode=False).graph
    told = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
        if value.type.HasField("tensor_type")
    }
    for tensor in model.graph.initializer:
        told[tensor.name] = tensor.data_type
    return {name: kind for name, kind in told.items() if kind}


def _contributed(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """What ONNX Runtime's own operators make, of which ONNX knows nothing: floats of the type of their scales."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in {"MatMulNBits", "GatherBlockQuantized"} and len(node.input) > 2 and node.input[2] in kinds:
            yield helper.make_tensor_value_info(node.output[0], kinds[node.input[2]], None)


def float_values(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 values of a graph: its inputs, and what its nodes make, in their order."""
    types = element_types(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    given = (value.name for value in model.graph.input if value.name not in weights)
    made = (*given, *(name for node in model.graph.node for name in node.output))
    return [name for name in made if types.get(name) == onnx.TensorProto.FLOAT]
