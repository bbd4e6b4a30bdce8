"""What a step decides for a site, as data: arrays and scales, not yet a graph. Targets emit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Compute = Literal["float", "int8"]
"""What a product with integer weights multiplies them with: its input as it is, or rounded in blocks as it runs."""


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """Weight-only integers in blocks along the input dimension.

    `codes` (out, blocks, block) uint8 hold unsigned integers of `bits` bits, `scales` (out, blocks) float32 may be
    negative, `zero_points` (out, blocks) uint8 or None for the middle of the range. The last block may be padded:
    `columns` is the true input size. weight = (codes - zero_point) * scale. With `compute` int8 the runtime also rounds
    what the weight is multiplied with, each row in blocks of its own. `correction` (out,) float32 is added to the
    product, None for nothing.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | None
    bits: int
    columns: int
    compute: Compute = "float"
    correction: NDArray[np.float32] | None = None

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return int(self.codes.shape[2])

    def dequantized(self) -> NDArray[np.float32]:
        """The weight that the runtime computes with, (out, columns)."""
        zero = (
            np.float32(1 << (self.bits - 1))
            if self.zero_points is None
            else self.zero_points[..., None].astype(np.float32)
        )
        values = (self.codes.astype(np.float32) - zero) * self.scales[..., None]
        return values.reshape(len(values), -1)[:, : self.columns]


@dataclass(frozen=True, slots=True)
class StaticInt8:
    """W8A8 with static scales: symmetric int8 weights per output channel, one symmetric scale for the input.

    `codes` (out, in) int8, `scales` (out,) float32, `input_scale` float: the input is clipped to +-127 scales.
    `correction` (out,) float32 is added to the product, None for nothing.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    input_scale: float
    correction: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Float16:
    """A weight in half precision, and with it, where the runtime computes in half precision, what it multiplies.

    `values` (out, in) float16. `wide` are the names of those values of the tower's graph that were seen too large for
    half precision: wherever one of them is read or made, the graph stays in float.
    """

    values: NDArray[np.float16]
    wide: NDArray[np.str_]

    def dequantized(self) -> NDArray[np.float32]:
        """The weight that the runtime computes with, (out, in)."""
        return self.values.astype(np.float32)


@dataclass(frozen=True, slots=True)
class StaticFloat8:
    """W8A8 in floating point E4M3FN (FP8 formats, 2209.05433): weights per output channel, one scale for the input.

    `codes` (out, in) uint8 are the bits of E4M3FN numbers, `scales` (out,) float32, `input_scale` float: the input
    saturates at +-448 scales.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    input_scale: float


Treatment = BlockWeights | StaticInt8 | Float16 | StaticFloat8
