"""Who comes first: similarities of embeddings, where ties, NaN and zero vectors count against the true answer."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.core.errors import CompressError

Rows = NDArray[np.float64]
Right = NDArray[np.float64]

TIE: Final = 1e-7
"""Similarities closer than this are a tie: float32 says no more, and gallery order must not decide."""

_CHUNK: Final = 512


def unit(embeddings: ArrayLike) -> Rows:
    """Rows of length one in float64. A zero row stays zero, a row with NaN or infinity becomes all NaN."""
    rows = np.array(embeddings, np.float64)
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    lengths = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    made: Rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths != 0)
    return made


def similarities(queries: Rows, gallery: Rows) -> Rows:
    """Dot products (queries, gallery)."""
    with np.errstate(invalid="ignore"):
        scores: Rows = queries @ gallery.T
    return scores


def strictly_best(scores: Rows, true: NDArray[np.int64]) -> Right:
    """1.0 for each row of (n, m) whose true column is finite and beats every other column by more than a tie."""
    rows = np.arange(len(scores))
    own = scores[rows, true]
    others = scores.copy()
    others[rows, true] = -np.inf
    right: NDArray[np.bool_] = np.isfinite(own) & (own[:, None] - TIE > others).all(axis=1)
    return right.astype(np.float64)


def true_candidate(images: Rows, texts: Rows, candidates: NDArray[np.int64]) -> Right:
    """1.0 for each image whose first candidate text beats its others.

    `candidates` is (n, c) places in `texts`; -1 fills the rows of images that have fewer.
    """
    parts = [np.empty(0)]
    for at in range(0, len(candidates), _CHUNK):
        chosen = candidates[at : at + _CHUNK]
        scores = np.einsum("nd,ncd->nc", images[at : at + _CHUNK], texts[chosen])
        scores[chosen < 0] = -np.inf
        parts.append(strictly_best(scores, np.zeros(len(chosen), np.int64)))
    return np.concatenate(parts)


def nearer(queries: Rows, same: Rows, other: Rows) -> Right:
    """1.0 for each query nearer to `same` than to `other`, unit rows all, by more than a tie; NaN is wrong."""
    with np.errstate(invalid="ignore"):
        ahead = (queries * same).sum(axis=1) - (queries * other).sum(axis=1)
    right: NDArray[np.bool_] = ahead > TIE
    return right.astype(np.float64)


def hits(scores: Rows, positive: NDArray[np.bool_], k: int) -> Right:
    """Recall at k: 1.0 for each query (row) with fewer than k wrong gallery items at or above its best true one."""
    best = np.where(positive & np.isfinite(scores), scores, -np.inf).max(axis=1, initial=-np.inf)
    ahead = (~positive & ~(scores < best[:, None] - TIE)).sum(axis=1)  # NaN is not below anything
    right: NDArray[np.bool_] = np.isfinite(best) & (ahead < k)
    return right.astype(np.float64)


def cosines(reference: Rows, candidate: Rows) -> Rows:
    """Cosine of each row with its counterpart; -1, the worst there is, where either is no vector.

    Raises CompressError where the shapes differ: rows of one number would be spread over rows of many.
    """
    if reference.shape != candidate.shape:
        raise CompressError(f"no cosine between embeddings of shapes {reference.shape} and {candidate.shape}")
    with np.errstate(invalid="ignore"):
        found = (reference * candidate).sum(axis=1)
    made: Rows = np.where(np.isfinite(found), np.clip(found, -1, 1), -1.0)
    return made


def neighbour_overlap(reference: Rows, candidate: Rows, k: int) -> Rows:
    """For each item, the share of its k nearest neighbours under the reference that it keeps under the candidate.

    NaN for an item that has no clear neighbours under the reference: among many copies nobody is nearer.
    """
    parts = [np.empty(0)]
    for at in range(0, len(reference), _CHUNK):
        near = _neighbours(reference, at, k)
        kept = (near & _neighbours(candidate, at, k)).sum(axis=1)
        number = near.sum(axis=1).astype(np.float64)
        parts.append(np.divide(kept, number, out=np.full(len(kept), np.nan), where=number > 0))
    return np.concatenate(parts)


def _neighbours(rows: Rows, at: int, k: int) -> NDArray[np.bool_]:
    """Which items are among the k nearest of a chunk's items however ties are broken; never the item itself."""
    scores = similarities(rows[at : at + _CHUNK], rows)
    own = np.arange(len(scores))
    scores[~np.isfinite(scores)] = -np.inf
    scores[own, own + at] = -np.inf
    next_best = np.partition(scores, -k - 1, axis=1)[:, -k - 1, None]
    near: NDArray[np.bool_] = scores - TIE > next_best
    return near


def flips(before: Rows, after: Rows) -> NDArray[np.bool_]:
    """Which rows of (n, m) scores have a best column that was not among the best before, or no best column at all."""
    lost = (_best(after) & ~_best(before)).any(axis=1)
    return np.asarray(lost | ~np.isfinite(after).any(axis=1), np.bool_)


def _best(scores: Rows) -> NDArray[np.bool_]:
    """The highest column of each row and whatever ties with it; NaN might be anything, so it counts as best."""
    finite = np.where(np.isfinite(scores), scores, -np.inf)
    best: NDArray[np.bool_] = ~(scores < finite.max(axis=1, keepdims=True) - TIE)
    return best
