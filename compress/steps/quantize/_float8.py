"""Rounding to 8-bit floats of the format E4M3FN (2209.05433): arrays in, arrays out."""

from __future__ import annotations

from typing import Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 448.0
"""The largest number of the format, which has no infinities."""


def float8_per_channel(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a weight (out, in) to E4M3FN bits (out, in) with a scale (out,) that puts each row's largest at 448."""
    largest = np.abs(weight).max(1)
    scales = np.where(largest == 0, np.float32(1), largest / np.float32(LARGEST)).astype(np.float32)
    rounded = np.clip(weight / scales[:, None], -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn)
    return rounded.view(np.uint8), scales


def decoded(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers that E4M3FN bits stand for."""
    values: NDArray[np.float32] = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return values
