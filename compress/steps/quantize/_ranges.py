"""What flows into a product, as far as static scales need to know it: a histogram, each channel's largest and power."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._affine import Affine
from compress.steps.quantize._signed import Signed


class Ranges:
    """A histogram of all values, the largest magnitude of every channel (in,) and its sum of squares (in,)."""

    def __init__(self) -> None:
        self.histogram = Signed()
        self.channels: NDArray[np.float64] = np.zeros(0)
        self.squares: NDArray[np.float64] = np.zeros(0)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array whose last axis is the input of the product. Raises ValueError on NaN or infinity."""
        self.histogram.add(values)
        rows = values.reshape(-1, values.shape[-1])
        largest = np.abs(rows).max(0, initial=0.0).astype(np.float64)
        squares = np.square(rows).sum(0, dtype=np.float64)
        self.channels = largest if not len(self.channels) else np.maximum(self.channels, largest)
        self.squares = squares if not len(self.squares) else self.squares + squares

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The histogram's state with what is kept of the channels."""
        return {**self.histogram.state(), "channels": self.channels, "squares": self.squares}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Ranges:
        """The ranges that had this state."""
        made = cls()
        made.histogram, made.channels, made.squares = Signed.restored(state), state["channels"], state["squares"]
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


def lost(seen: Ranges, grid: Affine, weight: NDArray[np.float32]) -> float:
    """Share of a product's power that rounding its input costs, by a weight (out, in).

    The error is taken to be the same in every channel, which is how one scale rounds, and channels to be apart. A loud
    channel that the weight hardly reads then counts for what it says, and what is lost of the others with it is seen.
    """
    reads = np.square(weight, dtype=np.float64).sum(0)
    power, error = float(seen.squares @ reads), grid.error(*seen.histogram.values())
    return error / len(reads) * float(reads.sum()) / power if power else 0.0
