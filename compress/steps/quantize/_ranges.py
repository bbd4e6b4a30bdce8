"""What flows into a product, as far as static scales need to know it: a histogram, and each channel's largest value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._histogram import BINS, Histogram


class Ranges:
    """A histogram of all magnitudes and the largest magnitude of every channel (in,)."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self.channels: NDArray[np.float64] = np.zeros(0)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array whose last axis is the input of the product. Raises ValueError on NaN or infinity."""
        self.histogram.add(values)
        largest = np.abs(values).reshape(-1, values.shape[-1]).max(0, initial=0.0).astype(np.float64)
        self.channels = largest if not len(self.channels) else np.maximum(self.channels, largest)

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The histogram's state with the channels."""
        return {**self.histogram.state(), "channels": self.channels}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Ranges:
        """The ranges that had this state."""
        made = cls()
        made.histogram, made.channels = Histogram.restored(state), state["channels"]
        return made


def smoothing(inputs: NDArray[np.float64], weights: NDArray[np.float64], strength: float) -> NDArray[np.float32]:
    """Scales (in,) that move part of the inputs' range into the weight: max|x|^a / max|w|^(1-a).

    G. Xiao et al., SmoothQuant (arXiv:2211.10438), equation 4. A channel that is silent, or that no weight reads,
    keeps its scale.
    """
    known = (inputs > 0) & (weights > 0)
    made = np.ones_like(inputs)
    made[known] = inputs[known] ** strength / weights[known] ** (1 - strength)
    return np.clip(made, 1e-4, 1e4).astype(np.float32)


def noise(histogram: Histogram, clip: float, levels: int) -> float:
    """Mean square that symmetric rounding to +-`levels` steps within `clip` adds, as a share of the mean square."""
    middles = (np.arange(BINS) + 0.5) * histogram.top / BINS
    power = float(histogram.counts @ np.square(middles))
    inside = middles <= clip
    lost = float(histogram.counts @ np.square(np.maximum(middles - clip, 0)))
    lost += float(histogram.counts[inside].sum()) * (clip / levels) ** 2 / 12
    return lost / power if power else 0.0
