"""What a teacher says of some batches, written as arrays batch by batch, wherever the teacher runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError

LARGEST: Final = np.finfo(np.float16).max
LENGTHS: Final = "lengths"


@dataclass
class Chunk:
    """Files in `folder`: value k goes to `<k>.npy`, all samples in order.

    Value 0 is the embedding, float32; the others are block outputs (n, tokens, width), float16, which in a text tower
    have more or fewer tokens from batch to batch: those that are missing are 0, and lengths.npy says how many are not.
    `rows` are the samples of all batches, `tokens` those of the longest text, 0 for images.
    """

    folder: Path
    kind: str
    rows: int
    tokens: int
    _written: list[NDArray[Any]] = field(default_factory=list, init=False, repr=False)
    _lengths: list[int] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, folder: Path, kind: str, shapes: Sequence[tuple[int, ...]]) -> Chunk:
        """A chunk with room for what is said of inputs of these shapes, one for each batch."""
        longest = max((shape[1] for shape in shapes if len(shape) == 2), default=0)  # images always have as many
        return cls(folder, kind, sum(shape[0] for shape in shapes), longest)

    def add(self, values: Sequence[NDArray[np.float32]]) -> None:
        """Write what was said of the next batch, float32. Raises UsageError for what is no number."""
        if not all(np.isfinite(each).all() for each in values):
            raise UsageError("the teacher says NaN or infinity", f"{self.kind} tower", "it cannot be mimicked")
        if not self._written:
            self._written = [self._room(place, each) for place, each in enumerate(values)]
        start = len(self._lengths)
        for held, each in zip(self._written, values, strict=True):
            clipped = np.clip(each, -LARGEST, LARGEST) if held.dtype == np.float16 else each
            if each.ndim == 3:
                held[start : start + len(each), : each.shape[1]] = clipped
            else:
                held[start : start + len(each)] = clipped
        self._lengths += [values[-1].shape[1] if values[-1].ndim == 3 else 0] * len(values[0])

    def close(self) -> None:
        """Write what is left to write."""
        np.save(self.folder / f"{LENGTHS}.npy", np.array(self._lengths, np.int64))

    def _room(self, place: int, first: NDArray[Any]) -> NDArray[Any]:
        """A file on the disk for all samples of one value."""
        tokens = max(self.tokens, first.shape[1]) if first.ndim == 3 else 0
        shape = (self.rows, tokens, first.shape[2]) if first.ndim == 3 else (self.rows, *first.shape[1:])
        kind = np.float16 if place else np.float32
        made: NDArray[Any] = np.lib.format.open_memmap(self.folder / f"{place}.npy", "w+", kind, shape)
        return made
