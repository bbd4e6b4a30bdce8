"""Operators that work number by number: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Final

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.models.operators.operator import Inputs, Operator, Options, given

TYPES: Final = {
    onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16, onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64, onnx.TensorProto.INT32: torch.int32, onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8, onnx.TensorProto.UINT8: torch.uint8, onnx.TensorProto.BOOL: torch.bool,
}  # fmt: skip


def _all(function: Callable[..., Tensor]) -> Operator:
    """An operator that takes its inputs as they come."""
    return lambda _, inputs: function(*inputs)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, taken two by two."""
    return lambda _, inputs: reduce(function, inputs)


def _div(_: Options, inputs: Inputs) -> Tensor:
    left, right = inputs
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _mod(options: Options, inputs: Inputs) -> Tensor:
    return torch.fmod(*inputs) if options.get("fmod", 0) else torch.remainder(*inputs)


def _gelu(options: Options, inputs: Inputs) -> Tensor:
    told = options.get("approximate", b"none")
    return F.gelu(inputs[0], approximate=told.decode() if isinstance(told, bytes) else told)


def _quick_gelu(options: Options, inputs: Inputs) -> Tensor:
    return inputs[0] * torch.sigmoid(options.get("alpha", 1.702) * inputs[0])


def _fast_gelu(_: Options, inputs: Inputs) -> Tensor:
    bias = given(inputs, 1)
    return F.gelu(inputs[0] if bias is None else inputs[0] + bias, approximate="tanh")


def _swish(options: Options, inputs: Inputs) -> Tensor:
    return inputs[0] * torch.sigmoid(options.get("alpha", 1.0) * inputs[0])


def _hard_sigmoid(options: Options, inputs: Inputs) -> Tensor:
    return torch.clamp(options.get("alpha", 0.2) * inputs[0] + options.get("beta", 0.5), 0, 1)


def _clip(options: Options, inputs: Inputs) -> Tensor:
    low, high = given(inputs, 1), given(inputs, 2)
    ends = options.get("min") if low is None else low.item(), options.get("max") if high is None else high.item()
    return inputs[0] if ends == (None, None) else torch.clamp(inputs[0], *ends)


def _cast(options: Options, inputs: Inputs) -> Tensor:
    return inputs[0].to(TYPES[options["to"]])


def _cast_like(_: Options, inputs: Inputs) -> Tensor:
    return inputs[0].to(inputs[1].dtype)


OPERATORS: Final[dict[str, Operator]] = {
    "Add": _all(torch.add), "Sub": _all(torch.sub), "Mul": _all(torch.mul), "Div": _div, "Mod": _mod,
    "Pow": _all(torch.pow), "Sqrt": _all(torch.sqrt), "Reciprocal": _all(torch.reciprocal),
    "Exp": _all(torch.exp), "Log": _all(torch.log), "Neg": _all(torch.neg), "Abs": _all(torch.abs),
    "Sin": _all(torch.sin), "Cos": _all(torch.cos), "Floor": _all(torch.floor), "Ceil": _all(torch.ceil),
    "Round": _all(torch.round), "Sign": _all(torch.sign), "Erf": _all(torch.erf), "Tanh": _all(torch.tanh),
    "Sigmoid": _all(torch.sigmoid), "Relu": _all(torch.relu), "Softplus": _all(F.softplus),
    "Mish": _all(F.mish), "HardSwish": _all(F.hardswish), "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda options, inputs: F.leaky_relu(inputs[0], options.get("alpha", 0.01)),
    "Elu": lambda options, inputs: F.elu(inputs[0], options.get("alpha", 1.0)),
    "PRelu": lambda _, inputs: torch.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0]),
    "Gelu": _gelu, "QuickGelu": _quick_gelu, "FastGelu": _fast_gelu, "Swish": _swish, "Clip": _clip,
    "Equal": _all(torch.eq), "Less": _all(torch.lt), "LessOrEqual": _all(torch.le), "Greater": _all(torch.gt),
    "GreaterOrEqual": _all(torch.ge), "And": _all(torch.logical_and), "Or": _all(torch.logical_or),
    "Xor": _all(torch.logical_xor), "Not": _all(torch.logical_not), "IsNaN": _all(torch.isnan),
    "Where": _all(torch.where), "Min": _folded(torch.minimum), "Max": _folded(torch.maximum),
    "Sum": _folded(torch.add), "Cast": _cast, "CastLike": _cast_like, "Identity": _all(lambda value: value),
    "Dropout": lambda _, inputs: inputs[0],
}  # fmt: skip
