"""What flows into a product, as far as static scales need to know it: a histogram, and each channel's largest value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._signed import Signed


class Ranges:
    """A histogram of all values and the largest magnitude of every channel (in,)."""

    def __init__(self) -> None:
        self.histogram = Signed()
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
        made.histogram, made.channels = Signed.restored(state), state["channels"]
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
