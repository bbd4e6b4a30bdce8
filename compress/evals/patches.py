"""Patch tokens of a task's images at its points, in the measuring child."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.data.child import Channel
from compress.data.session import Encoder
from compress.data.tokens import NoTokens, TokenReader
from compress.evals.ranking import cosines, unit
from compress.evals.task import TaskData

_SAME: Final = 0.9999
"""Lowest cosine between embeddings with and without the tokens shown: less is another computation."""

_COMPARED: Final = 32
"""On how many images that is looked at."""


def save(encoder: Encoder, data: TaskData, stem: Path, batch: int, channel: Channel) -> int:
    """Write `<stem>.images.npy`, `.texts.npy` (empty) and `.tokens.npy`; returns the patches a side of the grid.

    Only the tokens at points are kept, so memory holds one batch of grids. Raises NoTokens where there are none, or
    where the runtime computes something else as soon as they are looked at.
    """
    reader = TokenReader(encoder)
    points = data.points if data.points is not None else np.empty((0, 3), np.int64)
    embeddings: list[NDArray[np.float32]] = []
    tokens = np.empty((len(points), 0), np.float32)
    side = 0
    for at in range(0, len(data.images), batch):
        images = [data.images[place] for place in range(at, min(at + batch, len(data.images)))]
        seen = reader.read(images)
        if not at:
            side = seen.grid.shape[1]
            tokens = np.empty((len(points), seen.grid.shape[3]), np.float32)
            _check_same(encoder.images(images[:_COMPARED]), seen.embeddings[:_COMPARED])
        here = (points[:, 0] >= at) & (points[:, 0] < at + len(images))
        tokens[here] = seen.at(points[here] - np.array([at, 0, 0]))
        embeddings.append(seen.embeddings)
        channel.done(len(images))
    made = {"images": np.concatenate(embeddings), "texts": np.empty((0, 0), np.float32), "tokens": tokens}
    for kind, array in made.items():
        np.save(stem.with_name(f"{stem.name}.{kind}.npy"), array, allow_pickle=False)
    return side


def _check_same(without: NDArray[np.float32], with_tokens: NDArray[np.float32]) -> None:
    """Two broken embeddings are the same here: that is for the metrics to find."""
    sound = np.isfinite(without).all(axis=1) & np.isfinite(with_tokens).all(axis=1) & without.any(axis=1)
    if sound.any() and (lowest := cosines(unit(without[sound]), unit(with_tokens[sound])).min()) < _SAME:
        raise NoTokens(f"showing the tokens changes what the runtime computes: cosine {lowest:.6f}")
