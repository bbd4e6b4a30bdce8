"""A histogram of magnitudes that grows while data stream by, and the clip range chosen from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 4096
SMALLEST: Final = 1e-8
"""The narrowest range: below it bins, and the scale made of it, would have no width in float32."""


class Histogram:
    """Counts of |x| in BINS equal bins from 0; when a larger value arrives, neighbouring bins merge until it fits."""

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(BINS)
        self.top = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count an array of any shape. Raises ValueError on NaN or infinity."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError("the activations hold NaN or infinity")
        self.largest = max(self.largest, largest)
        self.top = self.top or max(largest, SMALLEST)
        while largest > self.top:
            self.widen()
        self.counts += np.histogram(magnitudes, BINS, (0.0, self.top))[0]

    def widen(self) -> None:
        """Merge neighbouring bins, so that they reach twice as far."""
        self.counts = self.merged(self.counts)
        self.top *= 2

    @staticmethod
    def merged(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts of bins that are twice as wide."""
        return np.concatenate([counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The counts, and the top of the last bin with the largest value."""
        return {"counts": self.counts, "range": np.array([self.top, self.largest])}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Histogram:
        """The histogram that had this state."""
        made = cls()
        made.counts, (made.top, made.largest) = state["counts"], map(float, state["range"])
        return made

    def percentile(self, percent: float) -> float:
        """The magnitude below which `percent` of the values lie, at most the largest one seen."""
        reached = np.cumsum(self.counts)
        at = int(np.searchsorted(reached, reached[-1] * percent / 100))
        return max(min((min(at, BINS - 1) + 1) * self.top / BINS, self.largest), SMALLEST)

    def least_error(self, levels: int = 127, candidates: int = 64) -> float:
        """The clip range with the smallest mean squared error of symmetric rounding to +-`levels` steps.

        Every bin stands for its middle: values beyond the range lose the distance to it, values inside lose a
        twelfth of a step squared.
        """
        middles = (np.arange(BINS) + 0.5) * self.top / BINS
        best, chosen = np.inf, self.largest
        for clip in np.linspace(self.largest / candidates, self.largest, candidates):
            beyond = np.maximum(middles - clip, 0)
            inside = middles <= clip
            error = float(self.counts @ np.square(beyond) + self.counts[inside].sum() * (clip / levels) ** 2 / 12)
            if error <= best:
                best, chosen = error, float(clip)
        return max(chosen, SMALLEST)
