"""Nearest neighbours by a vector database where one is installed, else by exact arithmetic; recall out of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.progress import Silent
from compress.data import child
from compress.data.child import Limits
from compress.evals.ranking import TIE, Right, Rows, similarities

WORKER: Final = "compress.evals.index_worker"
DATABASE: Final = ("pymilvus", "milvus-lite")
EXACT: Final = "exact"
_CHUNK: Final = 512
_SECONDS: Final = 900.0

Ids = NDArray[np.int64]
"""Places in the gallery (queries, limit), nearest first; -1 where there are no more."""


def name() -> str:
    """Which index answers here: the database with its version, or `exact`."""
    try:
        versions = [metadata.version(package) for package in DATABASE]
    except metadata.PackageNotFoundError:
        return EXACT
    return f"milvus-lite {versions[1]}"


def neighbours(gallery: Rows, queries: Sequence[Rows], limit: int, index: str | None = None) -> list[Ids]:
    """The `limit` nearest gallery rows of every query, for several sets of queries.

    Rows are unit vectors. What is not finite is neither stored nor asked for: a database takes no NaN. The database
    runs in a child process; raises CompressError where that dies, rather than answering from another index.
    """
    stored = np.flatnonzero(np.isfinite(gallery).all(axis=1))
    asked = [np.flatnonzero(np.isfinite(each).all(axis=1)) for each in queries]
    limit = min(limit, len(stored))
    parts = [np.ascontiguousarray(each[rows], np.float32) for each, rows in zip(queries, asked, strict=True)]
    made = [np.full((len(each), max(limit, 1)), -1, np.int64) for each in queries]
    if limit:
        kept = np.ascontiguousarray(gallery[stored], np.float32)
        search = exact if (index or name()) == EXACT else database
        for ids, rows, found in zip(made, asked, search(kept, parts, limit), strict=True):
            ids[rows] = np.where(found < 0, -1, stored[found])
    return made


def exact(gallery: NDArray[np.float32], queries: Sequence[NDArray[np.float32]], limit: int) -> list[Ids]:
    """Every similarity computed; of equal ones the earlier row comes first."""
    rows = gallery.astype(np.float64)
    found = []
    for each in queries:
        parts = [np.empty((0, limit), np.int64)]
        for at in range(0, len(each), _CHUNK):
            scores = similarities(each[at : at + _CHUNK].astype(np.float64), rows)
            parts.append(np.argsort(-scores, axis=1, kind="stable")[:, :limit])
        found.append(np.concatenate(parts))
    return found


def database(gallery: NDArray[np.float32], queries: Sequence[NDArray[np.float32]], limit: int) -> list[Ids]:
    """The same from Milvus Lite with a flat index, in a child process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "gallery.npy", gallery)
        for at, each in enumerate(queries):
            np.save(folder / f"queries-{at}.npy", each)
        request = {"folder": place, "sets": len(queries), "limit": limit}
        limits = Limits.of_machine(_SECONDS)
        child.run(WORKER, request, limits, Silent(), "searching in the vector database")
        return [np.load(folder / f"found-{at}.npy", allow_pickle=False) for at in range(len(queries))]


def reach(positive: NDArray[np.bool_], k: int) -> int:
    """How many neighbours have to be asked for, so that recall at k can be told whatever ties there are."""
    return k + int(positive.sum(axis=1).max(initial=0))


def recall(gallery: Rows, queries: Rows, ids: Ids, positive: NDArray[np.bool_], k: int) -> Right:
    """1.0 for each query with fewer than k wrong items at or above its best true one, as `ranking.hits` counts.

    `ids` are at least `reach` neighbours. They are scored again in float64, so that how an index breaks ties cannot
    matter. A gallery row that is no vector might be anywhere, and counts as ahead of every query it is wrong for.
    """
    broken = ~np.isfinite(gallery).all(axis=1)
    lost = (~positive[:, broken]).sum(axis=1)
    right = [np.empty(0)]
    for at in range(0, len(queries), _CHUNK):
        near = ids[at : at + _CHUNK]
        with np.errstate(invalid="ignore"):
            scores = np.einsum("qd,qkd->qk", queries[at : at + _CHUNK], gallery[near])
        scores = np.where((near >= 0) & np.isfinite(scores), scores, -np.inf)
        true = np.take_along_axis(positive[at : at + _CHUNK], near, axis=1) & (near >= 0)
        best = np.where(true, scores, -np.inf).max(axis=1)
        ahead = ((near >= 0) & ~true & ~(scores < best[:, None] - TIE)).sum(axis=1) + lost[at : at + _CHUNK]
        right.append((np.isfinite(best) & (ahead < k)).astype(np.float64))
    return np.concatenate(right)
