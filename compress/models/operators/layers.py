"""Operators with weights: products, convolutions, norms; and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.models.operators.operator import Inputs, Operator, Options, given

_CONVOLUTIONS: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LARGEST: Final = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS: Final = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _matmul(_: Options, inputs: Inputs) -> Tensor:
    return torch.matmul(inputs[0], inputs[1])


def _gemm(options: Options, inputs: Inputs) -> Tensor:
    left = inputs[0].T if options.get("transA", 0) else inputs[0]
    right = inputs[1].T if options.get("transB", 0) else inputs[1]
    made: Tensor = options.get("alpha", 1.0) * (left @ right)
    added = given(inputs, 2)
    return made if added is None else made + options.get("beta", 1.0) * added


def _einsum(options: Options, inputs: Inputs) -> Tensor:
    made: Tensor = torch.einsum(options["equation"].decode(), *inputs)
    return made


def _conv(options: Options, inputs: Inputs) -> Tensor:
    value, weight = inputs[0], inputs[1]
    rank = weight.ndim - 2
    kernel = options.get("kernel_shape", weight.shape[2:])
    spread = options.get("dilations", [1] * rank)
    strides = options.get("strides", [1] * rank)
    padded, within = _padded(value, options, [(size - 1) * gap + 1 for size, gap in zip(kernel, spread, strict=True)])
    made: Tensor = _CONVOLUTIONS[rank](
        padded, weight, given(inputs, 2), strides, within, spread, options.get("group", 1)
    )
    return made


def _padded(value: Tensor, options: Options, kernel: Sequence[int], filled: float = 0.0) -> tuple[Tensor, list[int]]:
    """The value, padded where that is not the same on both ends, and what is left to pad on both ends."""
    rank = value.ndim - 2
    told = list(options.get("pads", [0] * 2 * rank))
    how = options.get("auto_pad", b"NOTSET").decode()
    if how.startswith("SAME"):
        told = _same(value, options, kernel, how == "SAME_UPPER")
    if told[:rank] == told[rank:] and filled == 0.0:
        return value, told[:rank]
    pairs = [size for axis in range(rank - 1, -1, -1) for size in (told[axis], told[rank + axis])]
    return F.pad(value, pairs, value=filled), [0] * rank


def _same(value: Tensor, options: Options, kernel: Sequence[int], upper: bool) -> list[int]:
    strides = options.get("strides", [1] * len(kernel))
    before, after = [], []
    for size, width, step in zip(value.shape[2:], kernel, strides, strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if upper else more)
        after.append(more if upper else less)
    return before + after


def _max_pool(options: Options, inputs: Inputs) -> Tensor:
    kernel = list(options["kernel_shape"])
    spread = list(options.get("dilations", [1] * len(kernel)))
    value, _ = _padded(
        inputs[0], options, [(size - 1) * gap + 1 for size, gap in zip(kernel, spread, strict=True)], float("-inf")
    )
    made: Tensor = _LARGEST[len(kernel)](
        value, kernel, list(options.get("strides", [1] * len(kernel))), 0, spread, bool(options.get("ceil_mode", 0))
    )
    return made


def _average_pool(options: Options, inputs: Inputs) -> Tensor:
    kernel = list(options["kernel_shape"])
    value, within = _padded(inputs[0], options, kernel)
    if value is not inputs[0] and not options.get("count_include_pad", 0):
        raise NotImplementedError("AveragePool with other padding on one end than on the other")
    made: Tensor = _MEANS[len(kernel)](
        value, kernel, list(options.get("strides", [1] * len(kernel))), within,
        bool(options.get("ceil_mode", 0)), bool(options.get("count_include_pad", 0)),
    )  # fmt: skip
    return made


def _global(function: str) -> Operator:
    def pooled(_: Options, inputs: Inputs) -> Tensor:
        axes = list(range(2, inputs[0].ndim))
        value: Tensor = getattr(torch, function)(inputs[0], axes, keepdim=True)
        return value

    return pooled


def _layer_norm(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], options.get("axis", -1) % inputs[0].ndim
    shape = value.shape[axis:]
    bias = given(inputs, 2)
    scale = inputs[1].expand(shape)
    return F.layer_norm(value, shape, scale, None if bias is None else bias.expand(shape), options.get("epsilon", 1e-5))


def _rms_norm(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], options.get("axis", -1) % inputs[0].ndim
    return F.rms_norm(value, value.shape[axis:], inputs[1].expand(value.shape[axis:]), options.get("epsilon", 1e-5))


def _batch_norm(options: Options, inputs: Inputs) -> Tensor:
    value, scale, bias, mean, variance = inputs
    return F.batch_norm(value, mean, variance, scale, bias, training=False, eps=options.get("epsilon", 1e-5))


def _instance_norm(options: Options, inputs: Inputs) -> Tensor:
    return F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=options.get("epsilon", 1e-5))


def _group_norm(options: Options, inputs: Inputs) -> Tensor:
    return F.group_norm(inputs[0], options["num_groups"], inputs[1], inputs[2], options.get("epsilon", 1e-5))


OPERATORS: Final[dict[str, Operator]] = {
    "MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum, "Conv": _conv, "MaxPool": _max_pool,
    "AveragePool": _average_pool, "GlobalAveragePool": _global("mean"), "GlobalMaxPool": _global("amax"),
    "LayerNormalization": _layer_norm, "RMSNormalization": _rms_norm, "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
}  # fmt: skip
