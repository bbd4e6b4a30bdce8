"""Moments of what flows into a product: what compensating methods, of rounding and of pruning, know of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Moments:
    """Sums over rows x of an input (..., d), in float64: `gram` of x x^T (d, d), `total` of x (d,), `rows` how many."""

    def __init__(self) -> None:
        self.gram: Matrix = np.zeros((0, 0))
        self.total: Matrix = np.zeros(0)
        self.rows = 0.0

    def add(self, values: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> None:
        """Take in an array whose last axis is the input of the product; rows count `weights` (...,) times, or once.

        Raises ValueError on NaN or infinity.
        """
        flat = values.reshape(-1, values.shape[-1])
        counts = np.ones(len(flat), np.float32) if weights is None else weights.reshape(-1)
        scaled = flat if weights is None else flat * np.sqrt(counts)[:, None]
        gram = scaled.T @ scaled
        if not np.isfinite(gram.diagonal()).all():  # a row with one of them has its square there
            raise ValueError("the activations hold NaN or infinity")
        if not self.rows:
            self.gram, self.total = np.zeros(gram.shape), np.zeros(len(gram))
        self.gram += gram
        self.total += flat.sum(0, dtype=np.float64) if weights is None else counts @ flat.astype(np.float64)
        self.rows += float(counts.sum(dtype=np.float64))

    @property
    def mean(self) -> Matrix:
        """Mean of the rows, (d,)."""
        mean: Matrix = self.total / (self.rows or 1)
        return mean

    @property
    def covariance(self) -> Matrix:
        """Covariance of the rows, (d, d), divided by their number."""
        return _centered(self.gram / (self.rows or 1), self.mean, self.mean)

    def centered(self) -> Matrix:
        """The covariance in the memory of `gram`, which is used up."""
        self.gram /= self.rows or 1
        return _centered(self.gram, self.mean, self.mean)

    def kept(self, keep: NDArray[np.intp]) -> Moments:
        """Moments of some of the inputs."""
        made = Moments()
        if self.rows:
            made.gram, made.total, made.rows = self.gram[np.ix_(keep, keep)], self.total[keep], self.rows
        return made

    def mapped(self, matrix: Matrix, shift: Matrix | None = None) -> Moments:
        """Moments of M x + s in place of x, for a matrix (k, d) and a shift (k,)."""
        made, moved = Moments(), np.zeros(len(matrix)) if shift is None else shift
        total = matrix @ self.total
        crossed = np.outer(total, moved)
        made.gram = matrix @ self.gram @ matrix.T + crossed + crossed.T + self.rows * np.outer(moved, moved)
        made.total, made.rows = total + self.rows * moved, self.rows
        return made

    @classmethod
    def summed(cls, parts: Iterable[tuple[float, Moments]]) -> Moments:
        """The moments of the rows of all parts, each counted as often as the number before it says."""
        made, found = cls(), [(weight, each) for weight, each in parts if weight and each.rows]
        if found:
            made.gram = _sum([(weight, each.gram) for weight, each in found])
            made.total = _sum([(weight, each.total) for weight, each in found])
            made.rows = sum(weight * each.rows for weight, each in found)
        return made

    def state(self) -> dict[str, Matrix]:
        """All sums."""
        return {"gram": self.gram, "total": self.total, "rows": np.array(float(self.rows))}

    @classmethod
    def restored(cls, state: Mapping[str, Matrix]) -> Moments:
        """The moments that had this state."""
        made = cls()
        made.gram, made.total, made.rows = state["gram"], state["total"], float(state["rows"])
        return made


class JointMoments:
    """Moments of inputs x (n, d), and of x with targets t (n, m): `cross` of t x^T, `sums` of t, `power` of |t|^2."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.inputs = Moments()
        self.cross: Matrix = np.zeros((0, 0))
        self.sums: Matrix = np.zeros(0)
        self.power = 0.0

    def add(
        self, inputs: NDArray[np.float32], targets: NDArray[np.float32], weights: NDArray[np.float32] | None = None
    ) -> None:
        """Take in rows (n, d) with what belongs to them (n, m); they count `weights` (n,) times, or once.

        Raises ValueError on NaN or infinity.
        """
        if not self.inputs.rows:
            self.cross = np.zeros((targets.shape[1], inputs.shape[1]))
            self.sums = np.zeros(targets.shape[1])
        held = targets if weights is None else targets * weights[:, None]
        cross, power = held.T @ inputs, float((held.astype(np.float64) * targets).sum())
        if not (np.isfinite(cross).all() and np.isfinite(power)):
            raise ValueError("the activations hold NaN or infinity")
        self.inputs.add(inputs, weights)
        self.cross += cross
        self.sums += held.sum(0, dtype=np.float64)
        self.power += power

    @classmethod
    def of_product(cls, inputs: Moments, weight: Matrix, bias: Matrix) -> JointMoments:
        """With the targets W x + b of a product with weight (m, d) and bias (m,)."""
        made = cls()
        made.inputs = inputs
        made.cross = weight @ inputs.gram + np.outer(bias, inputs.total)
        made.sums = weight @ inputs.total + inputs.rows * bias
        made.power = float((made.cross * weight).sum() + bias @ made.sums)
        return made

    @property
    def rows(self) -> float:
        """Number of rows, or the sum of their weights."""
        return self.inputs.rows

    @property
    def target_mean(self) -> Matrix:
        """Mean of the targets, (m,)."""
        mean: Matrix = self.sums / (self.rows or 1)
        return mean

    @property
    def cross_covariance(self) -> Matrix:
        """Covariance of targets with inputs, (m, d)."""
        return _centered(self.cross / (self.rows or 1), self.target_mean, self.inputs.mean)

    @property
    def target_variance(self) -> float:
        """Sum of the variances of the targets."""
        return self.power / (self.rows or 1) - float(np.square(self.target_mean).sum())

    @classmethod
    def summed(cls, parts: Iterable[tuple[float, JointMoments]]) -> JointMoments:
        """The moments of the rows of all parts, each counted as often as the number before it says.

        A part that is alone and counts once is returned as it is.
        """
        found = [(weight, each) for weight, each in parts if weight and each.rows]
        if len(found) == 1 and found[0][0] == 1:
            return found[0][1]
        made = cls()
        made.inputs = Moments.summed((weight, each.inputs) for weight, each in found)
        if found:
            made.cross = _sum([(weight, each.cross) for weight, each in found])
            made.sums = _sum([(weight, each.sums) for weight, each in found])
            made.power = sum(weight * each.power for weight, each in found)
        return made

    def kept(self, keep: NDArray[np.intp]) -> JointMoments:
        """Moments of some of the inputs."""
        made = JointMoments()
        if self.rows:
            made.inputs = self.inputs.kept(keep)
            made.cross, made.sums, made.power = self.cross[:, keep], self.sums, self.power
        return made

    def mapped(self, matrix: Matrix) -> JointMoments:
        """Moments of M x in place of x, for a matrix (k, d)."""
        made = JointMoments()
        if self.rows:
            made.inputs = self.inputs.mapped(matrix)
            made.cross, made.sums, made.power = self.cross @ matrix.T, self.sums, self.power
        return made

    def state(self) -> dict[str, Matrix]:
        """All sums."""
        return {**self.inputs.state(), "cross": self.cross, "sums": self.sums, "power": np.array(self.power)}

    @classmethod
    def restored(cls, state: Mapping[str, Matrix]) -> JointMoments:
        """The moments that had this state."""
        made = cls()
        made.inputs = Moments.restored(state)
        made.cross, made.sums, made.power = state["cross"], state["sums"], float(state["power"])
        return made


_BLOCK: Final = 256


def _sum(parts: Sequence[tuple[float, Matrix]]) -> Matrix:
    """The weighted sum, a few rows at a time: a weighted part of its own would be as large again."""
    made = np.zeros(parts[0][1].shape)
    for start in range(0, len(made), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for weight, each in parts:
            made[rows] += each[rows] if weight == 1 else weight * each[rows]
    return made


def _centered(products: Matrix, left: Matrix, right: Matrix) -> Matrix:
    """Mean products (m, d) less those of the means, in place: an outer product of its own would be as large again."""
    for start in range(0, len(products), _BLOCK):
        rows = slice(start, start + _BLOCK)
        products[rows] -= np.outer(left[rows], right)
    return products
