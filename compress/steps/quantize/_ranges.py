"""What flows into a product, as far as static scales need to know it: all values, each channel, and a typical row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.steps.quantize._affine import Affine
from compress.steps.quantize._signed import Signed


class Ranges:
    """A histogram of all values; the largest magnitude of every channel (in,) and its share of the rows' power, summed.

    `logarithms` sums those of the rows' power over the `rows` that are not silent.
    """

    def __init__(self) -> None:
        self.histogram = Signed()
        self.channels: NDArray[np.float64] = np.zeros(0)
        self.shares: NDArray[np.float64] = np.zeros(0)
        self.logarithms = self.rows = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array whose last axis is the input of the product. Raises ValueError on NaN or infinity."""
        self.histogram.add(values)
        rows = values.reshape(-1, values.shape[-1])
        largest = np.abs(rows).max(0, initial=0.0).astype(np.float64)
        power = np.square(rows).sum(1, dtype=np.float64)
        heard = power > 0
        shares = (np.square(rows[heard]) / power[heard, None]).sum(0)
        first = not len(self.channels)
        self.channels = largest if first else np.maximum(self.channels, largest)
        self.shares = shares if first else self.shares + shares
        self.logarithms += float(np.log(power[heard]).sum())
        self.rows += float(heard.sum())

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The histogram's state with what is kept of the channels."""
        return {
            **self.histogram.state(),
            "channels": self.channels,
            "shares": self.shares,
            "power": np.array([self.logarithms, self.rows]),
        }

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Ranges:
        """The ranges that had this state."""
        made = cls()
        made.histogram, made.channels, made.shares = Signed.restored(state), state["channels"], state["shares"]
        made.logarithms, made.rows = map(float, state["power"])
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
    """Estimate of what rounding its input costs a product, as a share of a typical row's power; by a weight (out, in).

    The error is taken to be the same in every channel and row, which is how one scale rounds, and channels to be apart.
    A loud channel that the weight hardly reads counts for what it says, and a loud row for one among others: power as
    such would hide what they cost the rest. A typical row has the geometric mean of the rows' power.
    """
    places, counts = seen.histogram.values()
    reads = np.square(weight, dtype=np.float64).sum(0)
    typical = float(np.exp(seen.logarithms / max(seen.rows, 1)))
    heard = float(seen.shares @ reads) / max(seen.rows, 1) * typical
    return grid.error(places, counts) / float(counts.sum()) * float(reads.sum()) / heard if heard else 0.0
