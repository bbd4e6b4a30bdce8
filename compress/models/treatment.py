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
    """W8A8 with static scales: symmetric int8 weights per output channel, one scale and zero point for the input.

    `codes` (out, in) int8, `scales` (out,) float32, `input_scale` float: the input is held in uint8 as
    round(x / input_scale) + zero_point, cut off at 0 and 255; 128 is around zero. `correction` (out,) float32 is added
    to the product, None for nothing.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    input_scale: float
    correction: NDArray[np.float32] | None = None
    zero_point: int = 128

    @property
    def symmetric_scale(self) -> float:
        """The scale of the input where the runtime has no zero points: 127 steps reach as far as the longer side."""
        if self.zero_point == 128:
            return self.input_scale
        return self.input_scale * max(self.zero_point, 255 - self.zero_point) / 127


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


@dataclass(frozen=True, slots=True)
class BnbWeights:
    """A weight as bitsandbytes stores it, for its own kernels in torch.

    At 4 bits (nf4 of 2305.14314, fp4) `codes` (size / 2, 1) uint8 hold two indices into `table` (16,) each, the first
    in the high bits, and `scales` (blocks,) float32 the largest magnitude of each `block` weights in a row-major row of
    all of them. At 8 bits (LLM.int8, 2208.07339) `codes` (out, in) int8 and `scales` (out,) float32 hold the largest
    magnitude of each row; `table` is empty and `block` 0. Inputs are rounded as well there, each row by itself.
    """

    weights: Literal["nf4", "fp4", "int8"]
    codes: NDArray[np.uint8] | NDArray[np.int8]
    scales: NDArray[np.float32]
    table: NDArray[np.float32]
    block: int
    rows: int
    columns: int

    def dequantized(self) -> NDArray[np.float32]:
        """The weight that it stands for, (out, in)."""
        if self.weights == "int8":
            made: NDArray[np.float32] = self.codes * (self.scales[:, None] / np.float32(127))
            return made
        packed = self.codes.reshape(-1)
        count = self.rows * self.columns
        places = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[:count]
        values: NDArray[np.float32] = self.table[places] * np.repeat(self.scales, self.block)[:count]
        return values.reshape(self.rows, self.columns)


Treatment = BlockWeights | StaticInt8 | Float16 | StaticFloat8 | BnbWeights
