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

Found = list[Ids]
"""Of each set of queries."""

Vectors = NDArray[np.float32]


def name() -> str:
    """Which index answers here: the database with its version, or `exact`."""
    try:
        versions = [metadata.version(package) for package in DATABASE]
    except metadata.PackageNotFoundError:
        return EXACT
    return f"milvus-lite {versions[1]}"


def neighbours(galleries: Sequence[Rows], queries: Sequence[Rows], limit: int, index: str | None = None) -> list[Found]:
    """For every gallery the `limit` nearest rows of every query, for several sets of queries; rows are unit vectors.

    A gallery with a row that is not finite is no index, and nothing is found in it: a database refuses such rows. A
    query that is not finite finds nothing either. The database runs in a child process; raises CompressError where
    that dies, rather than answering from another index.
    """
    made = [[np.full((len(each), limit), -1, np.int64) for each in queries] for _ in galleries]
    sound = [at for at, rows in enumerate(galleries) if len(rows) and np.isfinite(rows).all()]
    asked = [np.flatnonzero(np.isfinite(each).all(axis=1)) for each in queries]
    stored = [np.ascontiguousarray(galleries[at], np.float32) for at in sound]
    parts = [np.ascontiguousarray(each[rows], np.float32) for each, rows in zip(queries, asked, strict=True)]
    if sound and any(map(len, parts)):
        search = exact if (index or name()) == EXACT else database
        for at, found in zip(sound, search(stored, parts, limit), strict=True):
            for ids, rows, near in zip(made[at], asked, found, strict=True):
                ids[rows, : near.shape[1]] = near
    return made


def exact(galleries: Sequence[Vectors], queries: Sequence[Vectors], limit: int) -> list[Found]:
    """Every similarity computed; of equal ones the earlier row comes first."""
    return [[_nearest(rows.astype(np.float64), each, limit) for each in queries] for rows in galleries]


def _nearest(gallery: Rows, queries: Vectors, limit: int) -> Ids:
    parts = [np.empty((0, min(limit, len(gallery))), np.int64)]
    for at in range(0, len(queries), _CHUNK):
        scores = similarities(queries[at : at + _CHUNK].astype(np.float64), gallery)
        parts.append(np.argsort(-scores, axis=1, kind="stable")[:, :limit])
    return np.concatenate(parts)


def database(galleries: Sequence[Vectors], queries: Sequence[Vectors], limit: int) -> list[Found]:
    """The same from Milvus Lite with flat indexes, in a child process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for kind, arrays in (("gallery", galleries), ("queries", queries)):
            for at, each in enumerate(arrays):
                np.save(folder / f"{kind}-{at}.npy", each)
        request = {"folder": place, "galleries": len(galleries), "sets": len(queries), "limit": limit}
        child.run(WORKER, request, Limits.of_machine(_SECONDS), Silent(), "searching in the vector database")
        return [
            [np.load(folder / f"found-{held}-{at}.npy", allow_pickle=False) for at in range(len(queries))]
            for held in range(len(galleries))
        ]


def reach(positive: NDArray[np.bool_], k: int) -> int:
    """How many neighbours have to be asked for, so that recall at k can be told whatever ties there are."""
    return k + int(positive.sum(axis=1).max(initial=0))


def recall(gallery: Rows, queries: Rows, ids: Ids, positive: NDArray[np.bool_], k: int) -> Right:
    """1.0 for each query with fewer than k wrong items at or above its best true one, as `ranking.hits` counts.

    `ids` are at least `reach` neighbours. They are scored again in float64, so that how an index breaks ties cannot
    matter.
    """
    right = [np.empty(0)]
    for at in range(0, len(queries), _CHUNK):
        near = ids[at : at + _CHUNK]
        with np.errstate(invalid="ignore"):
            scores = np.einsum("qd,qkd->qk", queries[at : at + _CHUNK], gallery[near])
        scores = np.where((near >= 0) & np.isfinite(scores), scores, -np.inf)
        true = np.take_along_axis(positive[at : at + _CHUNK], near, axis=1) & (near >= 0)
        best = np.where(true, scores, -np.inf).max(axis=1)
        ahead = ((near >= 0) & ~true & ~(scores < best[:, None] - TIE)).sum(axis=1)
        right.append((np.isfinite(best) & (ahead < k)).astype(np.float64))
    return np.concatenate(right)
