"""Half-quadratic search of zero points: H. Badri and A. Shaji, Half-Quadratic Quantization (2023).

Minimises |W - (Q - z) s|_p with p < 1, which lets a few outliers stay wrong for the sake of the rest. An auxiliary
variable E takes up the residual: E by a shrinkage that solves the p-norm, then z in closed form, in turns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.models.treatment import BlockWeights
from compress.steps.quantize._rounding import a_few_rows

Floats = NDArray[np.float32]
_NORM: Final = 0.7
_BETA: Final = 10.0
_GROWTH: Final = 1.01
_TURNS: Final = 20


def half_quadratic(weight: Floats, bits: int, block: int) -> BlockWeights:
    """Round a weight (out, in) in blocks with the zero points that the search ends with, as whole numbers.

    The runtime keeps zero points as integers of the weight's own bits, so the search's are rounded; a block whose
    p-norm got worse by that keeps the range's own zero point.
    """
    return a_few_rows(weight, lambda rows: _half_quadratic(rows, bits, block))


def _half_quadratic(weight: Floats, bits: int, block: int) -> BlockWeights:
    out, columns = weight.shape
    blocks = -(-columns // block)
    padded = np.zeros((out, blocks * block), np.float32)
    padded[:, :columns] = weight
    values = padded.reshape(out, blocks, block)
    top = np.float32((1 << bits) - 1)
    low, high = np.minimum(values.min(-1, keepdims=True), 0), np.maximum(values.max(-1, keepdims=True), 0)
    scales = np.where(high > low, (high - low) / top, np.float32(1)).astype(np.float32)
    start = np.clip(np.rint(-low / scales), 0, top)
    found = np.clip(np.rint(_search(values, scales, -low / scales, top)), 0, top)
    better = _p_norm(values, scales, found, top) < _p_norm(values, scales, start, top)
    zeros = np.where(better, found, start)
    codes = _codes(values, scales, zeros, top).astype(np.uint8)
    return BlockWeights(codes, scales[..., 0], zeros[..., 0].astype(np.uint8), bits, columns)


def _search(values: Floats, scales: Floats, zeros: Floats, top: np.float32) -> Floats:
    """Zero points (out, blocks, 1) after the half-quadratic turns."""
    beta = _BETA
    for _ in range(_TURNS):
        codes = _codes(values, scales, zeros, top)
        residual = values - (codes - zeros) * scales
        outlying = _shrunk(residual, beta)
        zeros = (codes - (values - outlying) / scales).mean(-1, keepdims=True)
        beta *= _GROWTH
    return zeros


def _shrunk(residual: Floats, beta: float) -> Floats:
    """The generalised soft threshold: sign(r) max(|r| - |r|^(p - 1) / beta, 0)."""
    size = np.abs(residual)
    with np.errstate(divide="ignore"):
        kept = np.maximum(size - np.where(size > 0, size, np.float32(np.inf)) ** (_NORM - 1) / beta, 0)
    return (np.sign(residual) * kept).astype(np.float32)


def _codes(values: Floats, scales: Floats, zeros: Floats, top: np.float32) -> Floats:
    made: Floats = np.clip(np.rint(values / scales + zeros), 0, top)
    return made


def _p_norm(values: Floats, scales: Floats, zeros: Floats, top: np.float32) -> Floats:
    """Sum |W - W'|^p of each block, (out, blocks, 1)."""
    lost = np.abs(values - (_codes(values, scales, zeros, top) - zeros) * scales)
    made: Floats = (lost**_NORM).sum(-1, keepdims=True)
    return made
