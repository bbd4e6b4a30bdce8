"""A histogram of magnitudes that counts negative values apart: what an input needs whose range is not around zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._histogram import BINS, Histogram


class Signed(Histogram):
    """Counts of |x| as in Histogram; `negative` (BINS,) are those of them that are below zero, in the same bins.

    `lowest` and `highest` are the ends of what was seen, zero included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.negative: NDArray[np.float64] = np.zeros(BINS)
        self.lowest = self.highest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count an array of any shape. Raises ValueError on NaN or infinity."""
        super().add(values)
        below = values[values < 0]
        self.negative += np.histogram(np.abs(below), BINS, (0.0, self.top))[0]
        self.lowest = min(self.lowest, float(values.min(initial=0.0)))
        self.highest = max(self.highest, float(values.max(initial=0.0)))

    def widen(self) -> None:
        """Merge neighbouring bins, of both counts."""
        super().widen()
        self.negative = self.merged(self.negative)

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Middles of the bins that hold something, from the lowest to the highest, and their counts."""
        middles = (np.arange(BINS) + 0.5) * self.top / BINS
        places = np.concatenate([-middles[::-1], middles])
        counts = np.concatenate([self.negative[::-1], self.counts - self.negative])
        held = counts > 0
        return places[held], counts[held]

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The histogram's state with the negative counts and the ends."""
        return {**super().state(), "negative": self.negative, "ends": np.array([self.lowest, self.highest])}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Signed:
        """The histogram that had this state."""
        made = cls()
        made.counts, (made.top, made.largest) = state["counts"], map(float, state["range"])
        made.negative, (made.lowest, made.highest) = state["negative"], map(float, state["ends"])
        return made
