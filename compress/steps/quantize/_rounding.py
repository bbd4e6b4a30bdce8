"""Rounding weights to integers: arrays in, arrays out, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.models.treatment import BlockWeights

Search = Literal["absmax", "mse"]
_TOGETHER = 1 << 16  # weights that are rounded at a time
_SHRINK = np.linspace(1.0, 0.6, 21, dtype=np.float32)


def in_blocks(
    weight: NDArray[np.float32],
    bits: int,
    block: int,
    symmetric: bool = True,
    search: Search = "mse",
    importance: NDArray[np.float32] | None = None,
) -> BlockWeights:
    """Round a weight (out, in) to nearest in blocks along the input dimension, a scale for each block.

    `absmax` sets each scale from the block's largest magnitude. `mse` tries shrunken ranges and keeps, block by
    block, the one with the smallest squared error; symmetric blocks also try a negative scale, which moves the one
    extra code (the range is -8..7 at 4 bits) to the side that needs it. `importance` (in,) weighs each column's error.
    """
    return a_few_rows(weight, lambda rows: _in_blocks(rows, bits, block, symmetric, search, importance))


def a_few_rows(weight: NDArray[np.float32], rounding: Callable[[NDArray[np.float32]], BlockWeights]) -> BlockWeights:
    """Round a weight (out, in) whose rows do not depend on each other, as many at a time as fit into the cache."""
    rows = max(1, _TOGETHER // max(weight.shape[1], 1))
    parts = [rounding(weight[at : at + rows]) for at in range(0, max(len(weight), 1), rows)]
    if len(parts) == 1:
        return parts[0]
    zeros = [each.zero_points for each in parts if each.zero_points is not None]
    codes, scales = (np.concatenate([getattr(each, name) for each in parts]) for name in ("codes", "scales"))
    return BlockWeights(codes, scales, np.concatenate(zeros) if zeros else None, parts[0].bits, weight.shape[1])


def _in_blocks(
    weight: NDArray[np.float32],
    bits: int,
    block: int,
    symmetric: bool,
    search: Search,
    importance: NDArray[np.float32] | None,
) -> BlockWeights:
    out, columns = weight.shape
    blocks = -(-columns // block)
    padded = np.zeros((out, blocks * block), np.float32)
    padded[:, :columns] = weight
    values = padded.reshape(out, blocks, block)
    weighing = None
    if importance is not None:
        weighing = np.ones(blocks * block, np.float32)
        weighing[:columns] = importance / (importance.mean() or 1.0)
        weighing = weighing.reshape(blocks, block)
    loss = _Loss(values, weighing)
    if symmetric:
        codes, scales = _symmetric(loss, bits, search)
        return BlockWeights(codes, scales, None, bits, columns)
    codes, scales, zeros = _asymmetric(loss, bits, search)
    return BlockWeights(codes, scales, zeros, bits, columns)


def per_tensor(weight: NDArray[np.float32], bits: int, block: int, search: Search = "absmax") -> BlockWeights:
    """Round a weight (out, in) with one scale for all of it, written in blocks because the kernel wants blocks."""
    flat = in_blocks(weight.reshape(1, -1), bits, weight.size, symmetric=True, search=search)
    middle = np.uint8(1 << (bits - 1))
    out, columns = weight.shape
    blocks = -(-columns // block)
    codes = np.full((out, blocks * block), middle, np.uint8)
    codes[:, :columns] = flat.codes.reshape(out, columns)
    scales = np.full((out, blocks), flat.scales.item(), np.float32)
    return BlockWeights(codes.reshape(out, blocks, block), scales, None, bits, columns)


@dataclass(frozen=True, slots=True)
class _Loss:
    """Weights in blocks (out, blocks, block) and what an error in each place of a block counts (blocks, block).

    Every error counts the same where that is None.
    """

    values: NDArray[np.float32]
    weighing: NDArray[np.float32] | None

    def of(self, restored: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weighed squared error of every block, (out, blocks). What is passed in is overwritten."""
        np.subtract(restored, self.values, out=restored)
        np.square(restored, out=restored)
        if self.weighing is not None:
            np.multiply(restored, self.weighing, out=restored)
        errors: NDArray[np.float32] = restored.sum(-1)
        return errors


def _symmetric(loss: _Loss, bits: int, search: Search) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    values = loss.values
    half = 1 << (bits - 1)
    largest = np.abs(values).max(-1)
    scales = _nonzero(largest / (half - 1))
    if search == "mse":
        ends = np.where(values.max(-1) >= -values.min(-1), 1, -1).astype(np.float32)
        candidates = [_nonzero(largest * shrink / (half - 1)) for shrink in _SHRINK]
        candidates += [_nonzero(-ends * largest * shrink / half) for shrink in _SHRINK]
        scales = _best(loss, candidates, lambda scale: _restored(values, scale, half))
    return (_rounded(values, scales, half) + half).astype(np.uint8), scales


def _rounded(values: NDArray[np.float32], scales: NDArray[np.float32], half: int) -> NDArray[np.float32]:
    codes = values / scales[..., None]
    np.rint(codes, out=codes)
    np.clip(codes, -half, half - 1, out=codes)
    return codes


def _restored(values: NDArray[np.float32], scales: NDArray[np.float32], half: int) -> NDArray[np.float32]:
    made = _rounded(values, scales, half)
    np.multiply(made, scales[..., None], out=made)
    return made


def _asymmetric(
    loss: _Loss, bits: int, search: Search
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    values = loss.values
    top = (1 << bits) - 1
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)

    def fitted(scale: NDArray[np.float32], shrink: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        zero = np.clip(np.rint(-low * np.float32(shrink) / scale), 0, top)
        return zero, np.clip(np.rint(values / scale[..., None]) + zero[..., None], 0, top)

    shrinks = _SHRINK if search == "mse" else _SHRINK[:1]
    best = np.full(low.shape, np.inf, np.float32)
    codes, zeros = np.zeros(values.shape, np.uint8), np.zeros(low.shape, np.uint8)
    scales = np.ones(low.shape, np.float32)
    for shrink in shrinks:
        scale = _nonzero((high - low) * shrink / top)
        zero, code = fitted(scale, float(shrink))
        error = loss.of((code - zero[..., None]) * scale[..., None])
        better = error < best
        best = np.where(better, error, best)
        scales, zeros = np.where(better, scale, scales), np.where(better, zero, zeros).astype(np.uint8)
        codes = np.where(better[..., None], code, codes).astype(np.uint8)
    return codes, scales, zeros


def _best(
    loss: _Loss,
    candidates: list[NDArray[np.float32]],
    restored: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """For every block the candidate scale with the smallest squared error, the first among equals."""
    best, chosen = np.full(candidates[0].shape, np.inf, np.float32), candidates[0]
    for scale in candidates:
        error = loss.of(restored(scale))
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, scale, chosen)
    return chosen


def _nonzero(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales in which an all-zero block divides by one instead of by nothing."""
    return np.where(scales == 0, np.float32(1), scales).astype(np.float32)


def int8_per_channel(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight (out, in) symmetrically to int8, one scale a row; returns codes and scales (out,)."""
    scales = _nonzero(np.abs(weight).max(1) / np.float32(127))
    return np.clip(np.rint(weight / scales[:, None]), -127, 127).astype(np.int8), scales
