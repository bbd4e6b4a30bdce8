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
_HIGHS: Final = 48
_LOWS: Final = 12


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

    def lost(self, seen: Signed) -> float:
        """Squared error of the values seen, as a share of their power."""
        places, counts = seen.values()
        power = float(counts @ np.square(places))
        return float(counts @ np.square(self.rounded(places) - places)) / power if power else 0.0


def least_error(seen: Signed) -> Affine:
    """The scale and zero point with the smallest squared error of what was seen.

    Both ends of the range are searched, because neither a LayerNormalization with an outlier nor a GELU has its values
    around zero: symmetric steps would spend half of their codes, or more, on values that never come.
    """
    lows = seen.lowest * np.arange(1, _LOWS + 1) / _LOWS if seen.lowest < 0 else np.zeros(1)
    highs = seen.highest * np.arange(1, _HIGHS + 1) / _HIGHS if seen.highest > 0 else np.zeros(1)
    candidates = [Affine.within(float(low), float(high)) for low in lows[::-1] for high in highs[::-1]]
    return min(candidates, key=lambda each: each.lost(seen))


def percentile(seen: Signed, percent: float) -> Affine:
    """The range that cuts both sides where `percent` of the magnitudes end."""
    clip = seen.percentile(percent)
    return Affine.within(max(-clip, seen.lowest), min(clip, seen.highest))
