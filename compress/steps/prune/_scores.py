"""Which channels to keep: scores of inputs of a product, and the choice among them."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.steps._moments import Matrix
from compress.steps._ridge import Kept

Score = Literal["residual", "fluctuation", "variance", "taylor", "magnitude"]

ROUNDS: Final = 64
"""Rounds in which channels leave: scores are exact within a round only for the first to go."""

WIDE: Final = 2048
"""Inputs beyond which a quarter of the rounds has to do."""

DAMPING: Final = 1e-4
"""Share of the mean variance that is added to each."""

_MOST: Final = 1.0
_BLOCK: Final = 256


def kept_count(width: int, ratio: float, multiple: int) -> int:
    """How many of `width` channels stay when a share goes: the nearest multiple, at least one of it, at most all."""
    wanted = round((1 - ratio) * width / multiple) * multiple
    return min(width, max(wanted, min(multiple, width)))


def choose(scores: NDArray[np.floating], count: int) -> Kept:
    """The sorted places of the `count` highest scores, the first among equals."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return np.sort(order[:count])


def magnitude(weight: Matrix, before: Matrix) -> Matrix:
    """Norm of all weights of a channel: its column of `weight` (out, d) and its row of `before` (d, in)."""
    norms: Matrix = np.sqrt(np.square(weight).sum(0) + np.square(before).sum(1))
    return norms


def variance(covariance: Matrix) -> Matrix:
    """Variance of the activation, which is what bias compensation cannot make up for (VBP)."""
    scores: Matrix = np.diag(covariance).copy()
    return scores


def fluctuation(covariance: Matrix, weight: Matrix) -> Matrix:
    """Variance times the squared norm of the weights that read it (FLAP, arXiv:2312.11983)."""
    scores: Matrix = np.diag(covariance) * np.square(weight).sum(0)
    return scores


def eliminated(covariance: Matrix, weight: Matrix, groups: int, count: int) -> Kept:
    """The groups that stay when those whose loss the others cannot make up for least go, a few at a time.

    The d inputs of `weight` (out, d) are `groups` runs of equal length. What the output loses with a group g, once the
    rest is fitted again, is tr(W_g [C^-1_gg]^-1 W_g^T); after every round W and C^-1 are those of the inputs left, as
    in optimal brain surgery (ZipLM, arXiv:2302.04089). The covariance (d, d) is used up: its memory holds the inverse,
    of which the lower triangle counts. Returns `count` sorted group numbers.
    """
    from scipy import linalg

    size, places, inverse = len(covariance) // groups, np.arange(len(covariance)), _inverse(covariance)
    current, left = np.array(weight, np.float64, order="F"), np.ones(groups, np.bool_)
    a_round = max(1, (groups - count) // (ROUNDS if len(covariance) <= WIDE else ROUNDS // 4))
    while (more := int(left.sum()) - count) > 0:
        leaving = np.argsort(_losses(inverse, current, size, left), kind="stable")[: min(a_round, more)]
        out = (leaving[:, None] * size + np.arange(size)).ravel()
        rows = np.where(out[:, None] >= places, inverse[out], inverse[:, out].T)
        factor = linalg.cholesky(rows[:, out], lower=True)
        half = linalg.solve_triangular(factor, rows, lower=True)
        read = linalg.solve_triangular(factor, current[:, out].T, lower=True)  # all by scipy's BLAS: see _ridge.product
        current = linalg.blas.dgemm(-1.0, read, half, 1.0, current, trans_a=1, overwrite_c=1)
        inverse = linalg.blas.dsyrk(-1.0, half.T, 1.0, inverse, lower=1, overwrite_c=1)
        inverse[out], inverse[:, out], current[:, out], left[leaving] = 0.0, 0.0, 0.0, False
    return np.flatnonzero(left)


def _inverse(covariance: Matrix) -> Matrix:
    """Lower triangle of the damped inverse, in the memory of the covariance.

    Of few rows, or of rows of which few count, a covariance is singular, and sums in single precision make it slightly
    indefinite; then it is damped more. Raises numpy.linalg.LinAlgError where no damping helps.
    """
    from scipy import linalg

    diagonal, places = np.diag(covariance).copy(), np.diag_indices_from(covariance)
    mean, damping = float(diagonal.mean()), DAMPING
    while True:
        covariance[places] = diagonal + max(damping * mean, 1e-30)
        try:  # columns first, as LAPACK reads it: it writes to what numpy calls the upper triangle
            factor, _ = linalg.cho_factor(covariance.T, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            damping *= 100  # well above the noise, which ten times as much need not be
            if damping > _MOST:
                raise
            for start in range(0, len(covariance), _BLOCK):
                rows = slice(start, start + _BLOCK)
                within = np.tril(covariance[rows, rows], -1)
                covariance[rows, start:] = covariance[start:, rows].T
                covariance[rows, rows] = within + within.T
            continue
        inverse: Matrix = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
        return inverse


def _losses(inverse: Matrix, weight: Matrix, size: int, left: NDArray[np.bool_]) -> Matrix:
    """What the output loses with each group, by the lower triangle of the inverse; infinity for those that are gone."""
    from scipy import linalg

    losses = np.full(len(left), np.inf)
    if size == 1:
        losses[left] = np.einsum("od,od->d", weight, weight)[left] / np.diag(inverse)[left]
        return losses
    for group in np.flatnonzero(left):
        own = slice(group * size, (group + 1) * size)
        columns = weight[:, own]
        losses[group] = float(
            (columns * linalg.solve(inverse[own, own], columns.T, lower=True, assume_a="pos").T).sum()
        )
    return losses
