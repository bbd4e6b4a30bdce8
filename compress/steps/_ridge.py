"""Centered ridge regression from moments: the closed form behind compensation without training.

What a product should give, t, is predicted from those inputs x_S of it that are kept: t ~ V x_S + c. Where t is the
product W x itself, V = W_S + W_P B and c = W_P (mu_P - B mu_S) with B = C_PS (C_SS + lambda I)^-1, which is the
compensation of arXiv:2602.05243 and arXiv:2602.23795 folded into the weight. What is shrunk is what is added to W_S,
so that an infinite lambda leaves the kept weights as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.steps._moments import JointMoments, Matrix

GRID: Final = tuple(10.0**power for power in range(-7, 1))
"""Ridges that are tried, as shares of the mean variance of the kept inputs."""

Kept = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fit:
    """A weight (out, kept) and an offset (out,) that predict the targets; `ridge` is the share that was added."""

    weight: Matrix
    offset: Matrix
    ridge: float


def fit(moments: JointMoments, start: Matrix, keep: Kept, ridge: float) -> Fit:
    """Predict the targets from the kept inputs; `start` (out, kept) is what the weight is shrunk to.

    Raises numpy.linalg.LinAlgError where the covariance cannot be inverted even so.
    """
    from scipy import linalg  # here, because reading a recipe imports its methods and must answer at once

    covariance = moments.inputs.covariance[np.ix_(keep, keep)]
    unexplained = moments.cross_covariance[:, keep] - start @ covariance
    held = covariance + np.eye(len(keep)) * max(ridge * float(np.diag(covariance).mean()), 1e-30)
    added = linalg.cho_solve(linalg.cho_factor(held, lower=True, overwrite_a=True), unexplained.T).T
    weight = start + added
    return Fit(weight, moments.target_mean - weight @ moments.inputs.mean[keep], ridge)


def shifted(moments: JointMoments, start: Matrix, keep: Kept) -> Fit:
    """The weight as it stands, and the offset that puts the mean right."""
    return Fit(start, moments.target_mean - start @ moments.inputs.mean[keep], float("inf"))


def error(made: Fit, moments: JointMoments, keep: Kept) -> float:
    """Mean squared error on the rows of `moments` over the variance of their targets; 0 is exact."""
    covariance = moments.inputs.covariance[np.ix_(keep, keep)]
    cross = moments.cross_covariance[:, keep]
    spread = moments.target_variance - 2 * float((made.weight * cross).sum())
    spread += float(((made.weight @ covariance) * made.weight).sum())
    drift = moments.target_mean - made.weight @ moments.inputs.mean[keep] - made.offset
    return max(spread + float(np.square(drift).sum()), 0.0) / (moments.target_variance or 1.0)


def best_ridge(train: JointMoments, held_out: JointMoments, start: Matrix, keep: Kept) -> tuple[float, float]:
    """The ridge of the grid whose fit on some rows has the least error on others, and that error; inf where none helps.

    Raises numpy.linalg.LinAlgError where no ridge of the grid makes the covariance invertible.
    """
    found = {float("inf"): error(shifted(train, start, keep), held_out, keep)}
    failed: np.linalg.LinAlgError | None = None
    for ridge in GRID:
        try:
            found[ridge] = error(fit(train, start, keep, ridge), held_out, keep)
        except np.linalg.LinAlgError as problem:
            failed = problem
    if failed is not None and len(found) == 1:
        raise failed
    best = min(found, key=lambda ridge: found[ridge])
    return best, found[best]
