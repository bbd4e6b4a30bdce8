"""Rounding an input to 8 bits with a zero point: which scale and zero point lose least, and how much that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._histogram import SMALLEST
from compress.steps.quantize._signed import Signed

TOP: Final = 255
MIDDLE: Final = 128
_HIGHS: Final = 40
_LOWS: Final = 10


@dataclass(frozen=True, slots=True)
class Affine:
    """x is held as round(x / scale) + zero_point, cut off at 0 and 255; zero is held exactly."""

    scale: float
    zero_point: int

    @classmethod
    def around(cls, clip: float) -> Affine:
        """Symmetric rounding to +-127 steps within `clip`."""
        return cls(clip / (TOP - MIDDLE), MIDDLE)

    @classmethod
    def within(cls, low: float, high: float) -> Affine:
        """All steps between `low` <= 0 and `high` >= 0; the zero point goes to the nearest whole step."""
        scale = max(high - low, SMALLEST) / TOP
        return cls(scale, round(-low / scale))

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is left of values."""
        codes = np.rint(values / self.scale) + self.zero_point
        made: NDArray[np.float64] = (np.clip(codes, 0, TOP) - self.zero_point) * self.scale
        return made

    def error(self, places: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
        """Squared error of values that come so many times each."""
        return float(counts @ np.square(self.rounded(places) - places))


def least_error(seen: Signed) -> Affine:
    """The scale and zero point with the smallest squared error of what was seen.

    Both ends of the range are searched, because neither a LayerNormalization with an outlier nor a GELU has its values
    around zero: symmetric steps would spend half of their codes, or more, on values that never come.
    """
    places, counts = seen.values()
    lows, highs = _ends(seen.lowest, _LOWS), _ends(seen.highest, _HIGHS)
    return min(
        (Affine.within(low, high) for low in lows for high in highs), key=lambda each: each.error(places, counts)
    )


def _ends(furthest: float, count: int) -> list[float]:
    """Candidates for an end of the range, the furthest first; zero where nothing lies on that side."""
    return [furthest * share / count for share in range(count, 0, -1)] if furthest else [0.0]


def percentile(seen: Signed, percent: float) -> Affine:
    """The range that cuts both sides where `percent` of the magnitudes end."""
    clip = seen.percentile(percent)
    return Affine.within(max(-clip, seen.lowest), min(clip, seen.highest))
