"""Scales that protect the weights which strong inputs meet: J. Lin et al., AWQ (arXiv:2306.00978), section 3.2.

A channel is multiplied by s in the weight and divided by s in what feeds it, so that its rounding error counts less.
s is a power of the input's strength; which power, a search over the loss of the rounded product says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

POWERS: Final = tuple(np.linspace(0, 1, 21).tolist())

Rows = NDArray[np.float64]
Restore = Callable[[NDArray[np.float32], Rows], NDArray[np.float32]]
"""A weight (out, in) and its inputs' second moments (in, in) -> the weight that the runtime would compute with."""


def scales_of(strength: Rows, power: float) -> NDArray[np.float32]:
    """Strength ** power, brought to a geometric mean of its ends of one; an input that never fired gets its floor."""
    floored = np.maximum(strength, max(float(strength.max()) * 1e-4, 1e-12))
    raised = floored**power
    made: NDArray[np.float32] = (raised / np.sqrt(raised.max() * raised.min())).astype(np.float32)
    return made


def best_power(weights: Sequence[NDArray[np.float32]], gram: Rows, restore: Restore) -> tuple[float, float, float]:
    """The power with the least loss over all weights (out, in) that read one input: (power, its loss, loss at 0).

    The loss is the mean square of what the products lose, E |(W - W') x|^2 = tr((W - W') gram (W - W')^T).
    """
    strength = np.sqrt(np.maximum(np.diag(gram), 0))
    losses = []
    for power in POWERS:
        scales = scales_of(strength, power)
        moments = gram / np.outer(scales, scales)
        losses.append(sum(_loss(weight, restore(weight * scales, moments) / scales, gram) for weight in weights))
    best = int(np.argmin(losses))
    return POWERS[best], losses[best], losses[0]


def _loss(weight: NDArray[np.float32], restored: NDArray[np.float32], gram: Rows) -> float:
    lost = weight.astype(np.float64) - restored
    return float(np.einsum("oi,oi->", lost @ gram, lost))
