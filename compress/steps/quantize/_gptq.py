"""Rounding that compensates: what one column of a weight loses, the columns after it make up for.

E. Frantar et al., GPTQ (arXiv:2210.17323): columns are rounded in turn, and the error of each is spread over those that
are not rounded yet along the inverse of the input's second moments. Scales are fixed beforehand, block by block in the
weight's own order, because the runtime wants blocks of neighbours; the turns may go by importance all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.models.treatment import BlockWeights
from compress.steps.quantize._rounding import in_blocks

_CHUNK = 128  # columns after which the error is spread over the rest of the weight in one product


def compensated(
    weight: NDArray[np.float32], gram: NDArray[np.float64], grid: BlockWeights, damping: float, by_importance: bool
) -> BlockWeights:
    """Round a weight (out, in) to the scales and zero points of `grid`, given the inputs' second moments (in, in).

    `damping` is added to the diagonal, as a share of its mean; an input that never fired keeps its rounded weight.
    Raises numpy.linalg.LinAlgError where the moments cannot be inverted even so.
    """
    out, columns = weight.shape
    scales = np.repeat(grid.scales, grid.block, 1)[:, :columns].astype(np.float64)
    middle = np.full_like(grid.scales, 1 << (grid.bits - 1)) if grid.zero_points is None else grid.zero_points
    zeros = np.repeat(middle, grid.block, 1)[:, :columns].astype(np.float64)
    order = np.argsort(-np.diag(gram), kind="stable") if by_importance else np.arange(columns)
    spread = _spreading(gram[np.ix_(order, order)], damping)
    left, scales, zeros = weight[:, order].astype(np.float64), scales[:, order], zeros[:, order]
    top, codes = (1 << grid.bits) - 1, np.empty((out, columns))
    for start in range(0, columns, _CHUNK):
        end = min(start + _CHUNK, columns)
        errors = np.empty((out, end - start))
        for at in range(start, end):
            codes[:, at] = np.clip(np.rint(left[:, at] / scales[:, at]) + zeros[:, at], 0, top)
            lost = left[:, at] - (codes[:, at] - zeros[:, at]) * scales[:, at]
            errors[:, at - start] = lost / spread[at, at]
            left[:, at:end] -= np.outer(errors[:, at - start], spread[at, at:end])
        left[:, end:] -= errors @ spread[start:end, end:]
    return _packed(codes, order, grid)


def _spreading(gram: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """The upper Cholesky factor of the inverse of the damped second moments."""
    from scipy import linalg  # here, because reading a recipe imports its methods and must answer at once

    diagonal = np.diag(gram)
    damped = gram + np.eye(len(gram)) * max(damping * float(diagonal.mean()), 1e-12)
    inverse = linalg.cho_solve(linalg.cho_factor(damped), np.eye(len(gram)))
    factor: NDArray[np.float64] = linalg.cholesky(inverse)
    return factor


def _packed(codes: NDArray[np.float64], order: NDArray[np.intp], grid: BlockWeights) -> BlockWeights:
    held = grid.codes.reshape(len(codes), -1).copy()  # padding keeps the codes that mean zero
    held[:, order] = codes.astype(np.uint8)
    return BlockWeights(held.reshape(grid.codes.shape), grid.scales, grid.zero_points, grid.bits, grid.columns)


def grid_for(
    weight: NDArray[np.float32], gram: NDArray[np.float64], bits: int, block: int, symmetric: bool
) -> BlockWeights:
    """Scales and zero points of least error, each column's error weighed by the power of its input."""
    return in_blocks(weight, bits, block, symmetric, "mse", importance=np.diag(gram).astype(np.float32))
