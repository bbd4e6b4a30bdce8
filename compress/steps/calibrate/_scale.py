"""The scale that turns cosines into probabilities: fitted by cross-entropy, judged by the expected calibration error.

Temperature scaling (C. Guo et al., 1706.04599) in both directions at once, as CLIP is trained (2103.00020). The loss is
convex in the scale. Multiplying by a positive number moves no rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 15
REACH: Final = 20.0
"""How many times larger or smaller than the old one a scale may become."""

Matrix = NDArray[np.float64]


def cosines(images: NDArray[np.float32], texts: NDArray[np.float32]) -> Matrix:
    """Cosine of every image (n, d) with every text (m, d): (n, m)."""
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (images.astype(float), texts.astype(float)))
    made: Matrix = a @ b.T
    return made


def targets(pairs: Sequence[Sequence[int]], count: int) -> tuple[Matrix, Matrix]:
    """Which text each image should be given, (n, count), and which image each text; rows of what has none are zero."""
    belongs = np.zeros((len(pairs), count))
    for row, places in enumerate(pairs):
        belongs[row, list(places)] = 1
    return _shares(belongs), _shares(belongs.T)


def probabilities(logits: Matrix) -> Matrix:
    """Softmax of each row."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    made: Matrix = shifted / shifted.sum(1, keepdims=True)
    return made


def loss(scale: float, found: Matrix, wanted: tuple[Matrix, Matrix]) -> float:
    """Mean cross-entropy of both directions of scale * cosines (n, m) against what is wanted, (n, m) and (m, n)."""
    return (_cross_entropy(scale * found, wanted[0]) + _cross_entropy(scale * found.T, wanted[1])) / 2


def fit(found: Matrix, wanted: tuple[Matrix, Matrix], before: float) -> float | None:
    """The scale of least loss; None where it lies farther than REACH from what it was, or nothing bounds it."""
    from scipy import optimize  # here, because reading a recipe imports its methods and must answer at once

    low, high = np.log(before / REACH), np.log(before * REACH)
    made = optimize.minimize_scalar(
        lambda power: loss(float(np.exp(power)), found, wanted), bounds=(low, high), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    bounded = low + 1e-3 < made.x < high - 1e-3 and loss(float(np.exp(high)), found, wanted) > made.fun + 1e-6
    return float(np.exp(made.x)) if bounded else None


def calibration_error(scale: float, found: Matrix, right: NDArray[np.bool_]) -> float:
    """Expected calibration error of each row's largest probability; `right` (n, m) says which answers are."""
    told = probabilities(scale * found)
    answers = told.argmax(1)
    sure, hit = told.max(1), right[np.arange(len(found)), answers]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(float(hit[bins == at].mean() - sure[bins == at].mean())) * (bins == at).mean() for at in set(bins)]
    return float(sum(gaps))


def _shares(belongs: Matrix) -> Matrix:
    count = belongs.sum(1, keepdims=True)
    made: Matrix = belongs / np.where(count == 0, 1, count)
    return made


def _cross_entropy(logits: Matrix, wanted: Matrix) -> float:
    top = logits.max(1, keepdims=True)
    told = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    rows = wanted.any(1)
    return float(-(wanted[rows] * told[rows]).sum(1).mean())
