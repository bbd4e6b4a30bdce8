"""Operators that move numbers without changing them, and those that make shapes and places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.models.graph import array
from compress.models.operators.operator import Inputs, Operator, Options, axes_of, given, whole


def _shape(options: Options, inputs: Inputs) -> Tensor:
    return torch.tensor(list(inputs[0].shape)[options.get("start", 0) : options.get("end")], dtype=torch.int64)


def _reshape(options: Options, inputs: Inputs) -> Tensor:
    value, wanted = inputs[0], whole(inputs[1])
    if not options.get("allowzero", 0):
        wanted = [value.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    return torch.reshape(value, wanted)


def _flatten(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], options.get("axis", 1)
    rows = math.prod(value.shape[:axis])
    return value.reshape(rows, -1) if value.numel() else value.reshape(rows, math.prod(value.shape[axis:]))


def _transpose(options: Options, inputs: Inputs) -> Tensor:
    value = inputs[0]
    return value.permute(*options.get("perm", range(value.ndim - 1, -1, -1)))


def _expand(_: Options, inputs: Inputs) -> Tensor:
    return inputs[0].expand(torch.broadcast_shapes(inputs[0].shape, tuple(whole(inputs[1]))))


def _squeeze(options: Options, inputs: Inputs) -> Tensor:
    axes = axes_of(options, inputs)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(options: Options, inputs: Inputs) -> Tensor:
    value, axes = inputs[0], axes_of(options, inputs) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _concat(options: Options, inputs: Inputs) -> Tensor:
    return torch.cat(list(inputs), options["axis"])


def _split(options: Options, inputs: Inputs) -> Sequence[Tensor]:
    value, axis, sizes = inputs[0], options.get("axis", 0), given(inputs, 1)
    told = whole(sizes) if sizes is not None else options.get("split")
    if told is not None:
        return torch.split(value, list(told), axis)
    return torch.split(value, math.ceil(value.shape[axis] / options["num_outputs"]), axis)


def _slice(_: Options, inputs: Inputs) -> Tensor:
    value, starts, ends = inputs[0], whole(inputs[1]), whole(inputs[2])
    axes, steps = given(inputs, 3), given(inputs, 4)
    places = whole(axes) if axes is not None else list(range(len(starts)))
    strides = whole(steps) if steps is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, places, strides, strict=True):
        taken = range(*slice(start, end, step).indices(value.shape[axis]))
        if step == 1:
            value = value.narrow(axis, taken.start, len(taken))
        else:
            value = value.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=value.device))
    return value


def _gather(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], options.get("axis", 0) % inputs[0].ndim
    places = _places(inputs[1], value.shape[axis]).to(value.device)
    if axis == 0 and value.ndim == 2:
        return F.embedding(places, value)
    taken = value.index_select(axis, places.reshape(-1))
    return torch.reshape(taken, (*value.shape[:axis], *places.shape, *value.shape[axis + 1 :]))


def _gather_elements(options: Options, inputs: Inputs) -> Tensor:
    value, axis = inputs[0], options.get("axis", 0)
    return torch.gather(value, axis, _places(inputs[1], value.shape[axis]))


def _gather_nd(options: Options, inputs: Inputs) -> Tensor:
    value, places = inputs
    if options.get("batch_dims", 0):
        raise NotImplementedError("GatherND with batch_dims")
    taken: Tensor = value[tuple(places[..., at].to(value.device) for at in range(places.shape[-1]))]
    return taken


def _places(told: Tensor, size: int) -> Tensor:
    places = told.to(torch.int64)
    return torch.where(places < 0, places + size, places)


def _range(_: Options, inputs: Inputs) -> Tensor:
    return torch.arange(*(each.item() for each in inputs), dtype=inputs[0].dtype)


def _constant_of_shape(options: Options, inputs: Inputs) -> Tensor:
    told = options.get("value")
    value = torch.zeros(1) if told is None else torch.from_numpy(array(told).copy())
    return torch.full(whole(inputs[0]), value.flatten()[0].item(), dtype=value.dtype)


def _tile(_: Options, inputs: Inputs) -> Tensor:
    return inputs[0].repeat(whole(inputs[1]))


def _trilu(options: Options, inputs: Inputs) -> Tensor:
    along = given(inputs, 1)
    offset = int(along.item()) if along is not None else 0
    return torch.triu(inputs[0], offset) if options.get("upper", 1) else torch.tril(inputs[0], offset)


def _pad(options: Options, inputs: Inputs) -> Tensor:
    value, told, filled = inputs[0], whole(inputs[1]), given(inputs, 2)
    axes = axes_of({}, inputs, 3) or list(range(value.ndim))
    before, after = [0] * value.ndim, [0] * value.ndim
    for at, axis in enumerate(axes):
        before[axis], after[axis] = told[at], told[len(axes) + at]
    pairs = [size for axis in range(value.ndim - 1, -1, -1) for size in (before[axis], after[axis])]
    mode = options.get("mode", b"constant").decode()
    if mode != "constant":
        while len(pairs) > 2 and pairs[-2:] == [0, 0]:
            pairs = pairs[:-2]
        return F.pad(value, pairs, {"edge": "replicate"}.get(mode, mode))
    return F.pad(value, pairs, value=float(filled.item()) if filled is not None else 0.0)


OPERATORS: Final[dict[str, Operator]] = {
    "Shape": _shape, "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Expand": _expand,
    "Size": lambda _, inputs: torch.tensor(inputs[0].numel()), "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements,
    "GatherND": _gather_nd, "Range": _range, "ConstantOfShape": _constant_of_shape, "Tile": _tile, "Trilu": _trilu,
    "Pad": _pad,
}  # fmt: skip
