"""QuickGelu without its factor, where the products around it are quantized: x * sigmoid(1.702 x) is SiLU of 1.702 x.

ONNX Runtime's kernel takes half as long where there is no factor. The product before it has a scale for each channel
and a bias, which take the factor in; what reads the result has a scale as well, which gives it back. Codes stay the
same, and numbers but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from compress.models.graph import array, drop_unused, initializers
from compress.models.surgery import free

_SCALES = {"MatMulIntegerToFloat": (3, 6), "MatMulNBits": (2, 5)}
"""Where a product takes the scales of its weights and its bias."""


def fold_factors(model: onnx.ModelProto) -> None:
    """Fold, in place, the factor of each QuickGelu between quantized products into them; others stay as they are."""
    found = list(_activations(model))
    weights = initializers(model)

    def scaled(name: str, factor: float) -> str:
        value, made = array(weights[name]), free(model, f"{name}_folded")
        folded = (value.astype(np.float64) * factor).astype(value.dtype)
        model.graph.initializer.append(numpy_helper.from_array(folded, made))
        return made

    for each in found:
        for at in _SCALES[each.before.op_type]:
            if at < len(each.before.input) and each.before.input[at]:
                each.before.input[at] = scaled(each.before.input[at], each.factor)
        if each.after.op_type == "QuantizeLinear":  # the product behind it goes on reading the scale as it was
            each.after.input[1] = scaled(each.after.input[1], each.factor)
        else:
            at = _SCALES[each.after.op_type][0]
            each.after.input[at] = scaled(each.after.input[at], 1 / each.factor)
        each.sigmoid.input[0] = each.before.output[0]
    if found:
        drop_unused(model.graph)


@dataclass(frozen=True)
class _Activation:
    """A sigmoid that weighs what it is made of, the product before it and what reads the result."""

    before: onnx.NodeProto
    sigmoid: onnx.NodeProto
    after: onnx.NodeProto
    factor: float


def _activations(model: onnx.ModelProto) -> Iterator[_Activation]:
    weights = initializers(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    returned = {each.name for each in model.graph.output}
    for sigmoid in model.graph.node:
        larger = makers.get(sigmoid.input[0]) if sigmoid.op_type == "Sigmoid" else None
        if larger is None or larger.op_type != "Mul" or larger.input[1] not in weights:
            continue
        value, factor = larger.input[0], array(weights[larger.input[1]])
        before, weighed = makers.get(value), readers.get(sigmoid.output[0], [])
        if before is None or before.op_type not in _SCALES or factor.size != 1 or len(weighed) != 1:
            continue
        product = weighed[0]
        if product.op_type != "Mul" or sorted(product.input) != sorted([value, sigmoid.output[0]]):
            continue
        made = {value, larger.output[0], sigmoid.output[0], product.output[0]}
        after = readers.get(product.output[0], [])
        alone = [len(readers[name]) for name in (value, larger.output[0], product.output[0]) if name in readers]
        if alone != [2, 1, 1] or made & returned or after[0].op_type not in ("QuantizeLinear", "MatMulNBits"):
            continue
        yield _Activation(before, sigmoid, after[0], float(factor.reshape(-1)[0]))
