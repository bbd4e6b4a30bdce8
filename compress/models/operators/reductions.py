"""Operators that sum up along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from compress.models.operators.operator import Inputs, Operator, Options, axes_of

Reduction = Callable[[Tensor, "list[int]", bool], Tensor]


def _over(function: Reduction) -> Operator:
    def reduced(options: Options, inputs: Inputs) -> Tensor:
        axes = axes_of(options, inputs)
        if not axes:
            if options.get("noop_with_empty_axes", 0):
                return inputs[0]
            axes = list(range(inputs[0].ndim))
        return function(inputs[0], axes, bool(options.get("keepdims", 1)))

    return reduced


def _prod(value: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((each % value.ndim for each in axes), reverse=True):
        value = torch.prod(value, axis, keepdim=keep)
    return value


def _argmax(options: Options, inputs: Inputs) -> Tensor:
    return _arg(torch.argmax, options, inputs)


def _argmin(options: Options, inputs: Inputs) -> Tensor:
    return _arg(torch.argmin, options, inputs)


def _arg(function: Callable[..., Tensor], options: Options, inputs: Inputs) -> Tensor:
    value, axis, keep = inputs[0], options.get("axis", 0), bool(options.get("keepdims", 1))
    value = value.to(torch.uint8) if value.dtype == torch.bool else value
    if options.get("select_last_index", 0):
        return value.shape[axis] - 1 - function(value.flip(axis), axis, keepdim=keep)
    ends = torch.max if function is torch.argmax else torch.min
    return ends(value, axis, keepdim=keep).indices if value.is_floating_point() else _first(value, axis, keep, function)


def _first(value: Tensor, axis: int, keep: bool, function: Callable[..., Tensor]) -> Tensor:
    """The first of equal ones, which torch does not promise: ties of integers are common, as in masks."""
    size = value.shape[axis]
    order = torch.arange(size, device=value.device).reshape(
        [-1 if at == axis % value.ndim else 1 for at in range(value.ndim)]
    )
    sign = 1 if function is torch.argmax else -1
    return torch.argmax(sign * value.to(torch.int64) * size - order, axis, keepdim=keep)


def _cumsum(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], int(inputs[1].item())
    if options.get("reverse", 0):
        value = value.flip(axis)
    total = torch.cumsum(value, axis, dtype=value.dtype)
    total = total - value if options.get("exclusive", 0) else total
    return total.flip(axis) if options.get("reverse", 0) else total


def _softmax(options: Options, inputs: Inputs) -> Tensor:
    return torch.softmax(inputs[0], options.get("axis", -1))


def _log_softmax(options: Options, inputs: Inputs) -> Tensor:
    return torch.log_softmax(inputs[0], options.get("axis", -1))


def _length(value: Tensor, axes: list[int], keep: bool) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(value, 2, axes, keepdim=keep)
    return length


def _normalized(options: Options, inputs: Inputs) -> Tensor:
    order, axis = options.get("p", 2), options.get("axis", -1)
    made: Tensor = inputs[0] / torch.linalg.vector_norm(inputs[0], order, axis, keepdim=True)
    return made


OPERATORS: Final[dict[str, Operator]] = {
    "ReduceMean": _over(lambda value, axes, keep: torch.mean(value, axes, keepdim=keep)),
    "ReduceSum": _over(lambda value, axes, keep: torch.sum(value, axes, keepdim=keep, dtype=value.dtype)),
    "ReduceMax": _over(lambda value, axes, keep: torch.amax(value, axes, keepdim=keep)),
    "ReduceMin": _over(lambda value, axes, keep: torch.amin(value, axes, keepdim=keep)),
    "ReduceProd": _over(_prod), "ReduceL2": _over(_length),
    "ReduceL1": _over(lambda value, axes, keep: torch.sum(value.abs(), axes, keepdim=keep)),
    "ReduceSumSquare": _over(lambda value, axes, keep: torch.sum(value * value, axes, keepdim=keep)),
    "ReduceLogSumExp": _over(lambda value, axes, keep: torch.logsumexp(value, axes, keepdim=keep)),
    "ArgMax": _argmax, "ArgMin": _argmin, "CumSum": _cumsum, "Softmax": _softmax, "LogSoftmax": _log_softmax,
    "LpNormalization": _normalized,
}  # fmt: skip
