"""Centered ridge regression from moments: the closed form behind compensation without training.

What a product should give, t, is predicted from those inputs x_S of it that are kept: t ~ V x_S + c. Where t is the
product W x itself, V = W_S + W_P B and c = W_P (mu_P - B mu_S) with B = C_PS (C_SS + lambda I)^-1, which is the
compensation of arXiv:2602.05243 and arXiv:2602.23795 folded into the weight. What is shrunk is what is added to W_S,
so that an infinite lambda leaves the kept weights as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.steps._moments import JointMoments, Matrix

GRID: Final = tuple(10.0**power for power in range(-7, 1))
"""Ridges that are tried, as shares of the mean variance of the kept inputs."""

DIRECTIONS: Final = 128
"""Random directions by which ridges are compared where there are more outputs (Johnson-Lindenstrauss)."""

Kept = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fit:
    """A weight (out, kept) and an offset (out,) that predict the targets; `ridge` is the share that was added."""

    weight: Matrix
    offset: Matrix
    ridge: float


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a fit and its error ask of rows: covariances (kept, kept) and (out, kept), means, the targets' variance."""

    covariance: Matrix
    cross: Matrix
    mean: Matrix
    target_mean: Matrix
    target_variance: float

    @classmethod
    def of(cls, moments: JointMoments) -> _Rows:
        """Those of moments of the kept inputs."""
        covariance, cross = moments.inputs.covariance, moments.cross_covariance
        return cls(covariance, cross, moments.inputs.mean, moments.target_mean, moments.target_variance)

    def seen_from(self, directions: Matrix) -> _Rows:
        """Of targets Q t in place of t, for directions (few, out)."""
        return replace(self, cross=product(directions, self.cross), target_mean=directions @ self.target_mean)

    def fit(self, start: Matrix, ridge: float) -> Fit:
        """Predict the targets: (T + lambda S) (C + lambda I)^-1, of which S is what lambda = infinity gives."""
        from scipy import linalg  # here, because reading a recipe imports its methods and must answer at once

        level = max(ridge * float(np.diag(self.covariance).mean()), 1e-30)
        held = self.covariance.copy()
        held[np.diag_indices_from(held)] += level
        factor = linalg.cho_factor(held.T, lower=True, overwrite_a=True)
        weight = linalg.cho_solve(factor, (self.cross + level * start).T, overwrite_b=True).T
        return Fit(weight, self.target_mean - applied(weight, self.mean), ridge)

    def shifted(self, start: Matrix) -> Fit:
        """The weight as it stands, and the offset that puts the mean right."""
        return Fit(start, self.target_mean - applied(start, self.mean), float("inf"))

    def loss(self, made: Fit) -> float:
        """Mean squared error less the variance of the targets."""
        drift = self.target_mean - applied(made.weight, self.mean) - made.offset
        explained = 2 * float((made.weight * self.cross).sum())
        power = float((product(made.weight, self.covariance) * made.weight).sum())
        return power - explained + float(drift @ drift)

    def error(self, made: Fit) -> float:
        """Mean squared error over the variance of the targets."""
        return max(self.target_variance + self.loss(made), 0.0) / (self.target_variance or 1.0)


def product(left: Matrix, right: Matrix) -> Matrix:
    """Left (m, k) times right (k, n) by scipy's BLAS.

    numpy brings another one, with threads of its own that keep turning for a while after each product: beside the
    factorizations here, which are scipy's, each would slow the other down.
    """
    from scipy import linalg  # here, because reading a recipe imports its methods and must answer at once

    made: Matrix = linalg.blas.dgemm(1.0, right.T, left.T).T  # columns first, as BLAS reads it: nothing is copied
    return made


def applied(matrix: Matrix, vector: Matrix) -> Matrix:
    """A matrix (m, k) times a vector (k,), by scipy's BLAS as well."""
    return product(matrix, vector[:, None])[:, 0]


def fit(moments: JointMoments, start: Matrix, ridge: float) -> Fit:
    """Predict the targets from inputs that are kept; `start` (out, kept) is what the weight is shrunk to.

    Raises numpy.linalg.LinAlgError where the covariance cannot be inverted even so.
    """
    return _Rows.of(moments).fit(start, ridge)


def shifted(moments: JointMoments, start: Matrix) -> Fit:
    """The weight as it stands, and the offset that puts the mean right."""
    return Fit(start, moments.target_mean - start @ moments.inputs.mean, float("inf"))


def error(made: Fit, moments: JointMoments) -> float:
    """Mean squared error on the rows of `moments` over the variance of their targets; 0 is exact."""
    return _Rows.of(moments).error(made)


def best_ridge(train: JointMoments, held_out: JointMoments, start: Matrix) -> tuple[Fit, float]:
    """The fit on some rows, with the ridge of the grid that has the least error on others, and that error.

    Goes downhill from the middle of the grid: with too little ridge a fit follows noise, with too much it stays as it
    was, so the errors make one valley. Where none helps it is the start, shifted. Ridges are compared by random
    directions of the targets where there are more targets than that. Raises numpy.linalg.LinAlgError where no ridge
    that it comes by makes the covariance invertible.
    """
    rows, judges = _Rows.of(train), _Rows.of(held_out)
    few, few_judges, few_start = rows, judges, start
    if len(start) > DIRECTIONS:
        directions = np.random.default_rng(0).standard_normal((DIRECTIONS, len(start)))
        few, few_judges, few_start = rows.seen_from(directions), judges.seen_from(directions), directions @ start
    failed: list[np.linalg.LinAlgError] = []

    @cache
    def left(at: int) -> float:
        try:
            return few_judges.loss(few.fit(few_start, GRID[at]))
        except np.linalg.LinAlgError as problem:
            failed.append(problem)
            return float("inf")

    at, before = len(GRID) // 2, -1
    while at != before:  # of equals the greater ridge: where nothing can be inverted, more of it may help
        before, at = at, min((near for near in (at + 1, at, at - 1) if 0 <= near < len(GRID)), key=left)
    if not np.isfinite(left(at)):
        raise failed[0]
    helps = left(at) < few_judges.loss(few.shifted(few_start))
    made = rows.fit(start, GRID[at]) if helps else rows.shifted(start)
    return made, judges.error(made)
