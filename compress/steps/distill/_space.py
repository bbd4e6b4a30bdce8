"""Linear maps from a student's embeddings into its teacher's space, in closed form; folded in before the L2 norm.

A map without an offset commutes with the scaling of its rows, so a map fitted to embeddings of length 1 and folded into
the projection gives the same directions as one applied behind it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError

Matrix = NDArray[np.float64]
Map = Literal["procrustes", "linear"]

GRID: Final = tuple(10.0**power for power in range(-8, 2))
"""Ridges that are tried, as shares of the mean square of the student's numbers."""

HELD_OUT: Final = 4
"""Every so manieth sample only watches while the map is judged; the map that is folded in has seen all of them."""

LEAST: Final = 8
"""Samples below which a map says nothing about others."""


def fitted(own: NDArray[Any], other: NDArray[Any], how: Map, unit: bool) -> tuple[Matrix, float]:
    """The map (p, q) of embeddings (n, p) to the teacher's (n, q), and its mean cosine on samples it was not fitted to.

    `unit`: embeddings are of length 1 in the end, so that only directions count. Raises UsageError for embeddings that
    are not finite or zero, or too few.
    """
    a, b = (_checked(values, whose) for values, whose in ((own, "student"), (other, "teacher")))
    if len(a) < LEAST:
        raise UsageError(f"a map cannot be fitted on {len(a)} samples", "map", f"{LEAST} are the least")
    if unit:
        a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    find = linear if how == "linear" else procrustes if unit else scaled_procrustes
    watching = np.arange(len(a)) % HELD_OUT == HELD_OUT - 1
    trial = find(a[~watching], b[~watching])
    return find(a, b), float(cosines(a[watching] @ trial, b[watching]).mean())


def procrustes(own: Matrix, other: Matrix) -> Matrix:
    """The map with orthonormal rows or columns, whichever are fewer, that brings `own` nearest to `other`.

    Schoenemann (1966): U V' of the singular value decomposition of own' other. A student with no more numbers than the
    teacher keeps the cosines among its own embeddings.
    """
    left, _, right = np.linalg.svd(own.T @ other, full_matrices=False)
    return np.asarray(left @ right)


def scaled_procrustes(own: Matrix, other: Matrix) -> Matrix:
    """The same times the factor that suits best, for embeddings whose length counts."""
    left, sizes, right = np.linalg.svd(own.T @ other, full_matrices=False)
    turned = np.asarray(left @ right)
    return np.asarray(sizes.sum() / np.square(own @ turned).sum() * turned)


def linear(own: Matrix, other: Matrix) -> Matrix:
    """Ridge regression without an offset; the ridge by generalised cross-validation (Golub, Heath and Wahba, 1979)."""
    count, mean = len(own), float(np.square(own).sum()) / own.shape[1]
    values, vectors = np.linalg.eigh(own.T @ own)
    values = np.maximum(values, 0.0)
    crossed = vectors.T @ (own.T @ other)
    best, chosen = np.inf, GRID[-1] * mean
    for share in GRID:
        ridge = share * mean
        kept = values / (values + ridge)
        missed = other - own @ (vectors @ (crossed / (values + ridge)[:, None]))
        free = 1 - float(kept.sum()) / count
        score = float(np.square(missed).mean()) / free**2 if free > 1e-6 else np.inf
        if score < best:
            best, chosen = score, ridge
    return np.asarray(vectors @ (crossed / (values + chosen)[:, None]))


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Cosine of each row with the row of the same place; 0 for one without length."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    made: NDArray[Any] = (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0)
    return made


def _checked(values: NDArray[Any], whose: str) -> Matrix:
    made = np.asarray(values, np.float64)
    if not np.isfinite(made).all():
        raise UsageError(f"the {whose} says NaN or infinity", "map", "there is nothing to map")
    if not np.linalg.norm(made, axis=1).all():
        raise UsageError(f"the {whose} says zero", "map", "there is nothing to map")
    return made
