"""The child that runs the teacher: embeddings and block outputs of a few batches, written as arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Channel, Data
from compress.targets.graph.session import open_session, run

LARGEST = np.finfo(np.float16).max
LENGTHS = "lengths"


def work(request: Data, channel: Channel) -> Data:
    """Run `graph` on every feed; value k of `values` goes to `<k>.npy` in `out`, all samples in order.

    Value 0 is the embedding, float32; the others are block outputs (n, tokens, width), float16, which in a text tower
    have more or fewer tokens from batch to batch: those that are missing are 0, and lengths.npy says how many are not.
    """
    session, out = open_session(Path(request["graph"])), Path(request["out"])
    feeds, values = request["feeds"], request["values"]
    counts = [_count(path, request["inputs"][0]) for path in feeds]
    longest = max((_tokens(path, request["inputs"][0]) for path in feeds), default=0)
    written: list[NDArray[Any]] = []
    lengths: list[int] = []
    channel.expect(len(feeds))
    for at, path in enumerate(feeds):
        with np.load(path, allow_pickle=False) as batch:
            made = [
                np.asarray(each, np.float32) for each in run(session, values, {k: batch[k] for k in request["inputs"]})
            ]
        if not all(np.isfinite(each).all() for each in made):
            raise UsageError("the teacher says NaN or infinity", f"{request['tower']} tower", "it cannot be mimicked")
        if not written:
            written = [_room(out, place, each, sum(counts), longest) for place, each in enumerate(made)]
        start = sum(counts[:at])
        for held, each in zip(written, made, strict=True):
            clipped = np.clip(each, -LARGEST, LARGEST) if held.dtype == np.float16 else each
            if each.ndim == 3:
                held[start : start + len(each), : each.shape[1]] = clipped
            else:
                held[start : start + len(each)] = clipped
        lengths += [made[-1].shape[1] if made[-1].ndim == 3 else 0] * counts[at]
        channel.done(1)
    np.save(out / f"{LENGTHS}.npy", np.array(lengths, np.int64))
    return {}


def _room(out: Path, place: int, first: NDArray[Any], rows: int, longest: int) -> NDArray[Any]:
    """A file on the disk for all samples of one value."""
    tokens = max(longest, first.shape[1]) if first.ndim == 3 else 0
    shape = (rows, tokens, first.shape[2]) if first.ndim == 3 else (rows, *first.shape[1:])
    kind = np.float16 if place else np.float32
    made: NDArray[Any] = np.lib.format.open_memmap(out / f"{place}.npy", "w+", kind, shape)
    return made


def _count(path: str, name: str) -> int:
    with np.load(path, allow_pickle=False) as batch:
        return len(batch[name])


def _tokens(path: str, name: str) -> int:
    """Tokens of a text batch; 0 for images, which always have as many."""
    with np.load(path, allow_pickle=False) as batch:
        return int(batch[name].shape[1]) if batch[name].ndim == 2 else 0


if __name__ == "__main__":
    sys.exit(child.serve(work))
