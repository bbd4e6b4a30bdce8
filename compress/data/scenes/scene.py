"""What every kind of scene produces, and how a split and an index become a random stream."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SIZE: Final = 64
"""Side of a rendered scene in pixels."""

SPLITS: Final = ("train", "calibration", "development", "release")
_SHARES: Final = (45, 50, 75, 100)


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that was drawn: what it is, the quadrilateral it covers, (x, y) corners in order, its place in a word.

    The first character of a word has place 1; what is no part of a word has place 0.
    """

    kind: str
    label: str
    corners: tuple[tuple[float, float], ...]
    place: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """An image (SIZE x SIZE x 3, uint8), the caption that is true of it, captions that are not, and its slices."""

    image: NDArray[np.uint8]
    caption: str
    negatives: tuple[str, ...]
    slices: Mapping[str, str]
    marks: tuple[Mark, ...] = field(default=())


def stream(kind: str, split: str, seed: int, index: int) -> np.random.Generator:
    """The random stream of one item: independent of every other item, kind, split and seed."""
    salt = zlib.crc32(kind.encode())
    return np.random.default_rng((salt, SPLITS.index(split), seed, index))


def split_of(key: str) -> str:
    """The one split a text belongs to, decided by the text alone, so that no two splits ever share it."""
    point = zlib.crc32(b"scenes:" + key.encode()) % 100
    return next(split for split, share in zip(SPLITS, _SHARES, strict=True) if point < share)


def pick(rng: np.random.Generator, options: Any) -> Any:
    """One of a sequence, uniformly."""
    return options[int(rng.integers(len(options)))]
