"""The directions of a head that matter: closed forms for fewer dims per head, exact up to what is cut off.

What a head mixes is linear between two weights, so any basis will do: keeping the best directions is never worse than
keeping the best of the given dims.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.steps._moments import Matrix

DAMPING = 1e-6


def of_values(covariance: Matrix, weight: Matrix, count: int) -> tuple[Matrix, Matrix, float]:
    """A map (count, d) of a head's values and the weight (out, count) that reads it, with the share of power lost.

    W o is kept best, in the mean square over centered o with this covariance (d, d): W L = U S V^T with C = L L^T.
    """
    root = _root(covariance)
    left, sizes, right = np.linalg.svd(weight @ root, full_matrices=False)
    made = sizes[:count, None] * np.linalg.solve(root.T, right[:count].T).T  # as strong as what is read of them
    return made, left[:, :count], _lost(sizes, count)


def of_logits(queries: Matrix, keys: Matrix, count: int) -> tuple[Matrix, Matrix, float]:
    """Maps (count, d) of a head's queries and keys, with the share of the logits' power lost.

    `queries` are second moments (d, d), `keys` a covariance: what all keys share shifts a query's logits alike, and
    the softmax does not see it. q^T k is kept best in the mean square: L_q^T L_k = U S V^T.
    """
    root, other = _root(queries), _root(keys)
    left, sizes, right = np.linalg.svd(root.T @ other)
    scale = np.sqrt(sizes[:count])[:, None]
    first, second = np.linalg.solve(root.T, left[:, :count]).T, np.linalg.solve(other.T, right[:count].T).T
    return scale * first, scale * second, _lost(sizes, count)


def diagonal(blocks: Sequence[Matrix]) -> Matrix:
    """A matrix with these blocks along its diagonal."""
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    made: Matrix = np.zeros((rows[-1], columns[-1]))
    for at, block in enumerate(blocks):
        made[rows[at] : rows[at + 1], columns[at] : columns[at + 1]] = block
    return made


def _root(moments: Matrix) -> Matrix:
    """The lower Cholesky factor of slightly damped moments; damped more where sums have made them indefinite.

    Raises numpy.linalg.LinAlgError where no damping helps.
    """
    damping, mean = DAMPING, float(np.diag(moments).mean())
    while True:
        try:
            factor = np.linalg.cholesky(moments + max(damping * mean, 1e-12) * np.eye(len(moments)))
        except np.linalg.LinAlgError:
            damping *= 100
            if damping > 1:
                raise
            continue
        return factor.astype(np.float64)


def _lost(sizes: Matrix, count: int) -> float:
    power = np.square(sizes)
    return float(power[count:].sum() / (power.sum() or 1.0))
