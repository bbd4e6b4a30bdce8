"""Fingerprints of images, and which images of two sets are the same picture: calibration data must not be test data.

A copy may have been stored again, resized or mirrored. Pictures are compared by their colour thumbnails: unlike 64-bit
perceptual hashes, these tell two codes printed at the same place apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE: Final = 16
APART: Final = 0.25
"""Root mean square difference of two thumbnails, in units of their contrast, up to which they are one picture.

Measured on rendered scenes, which are poor in detail: resized copies differ by at most 0.14, JPEG at quality 50 by
0.30 at the 99th percentile, and the likest two different scenes among a million pairs by 0.34.
"""

_NOISE: Final = 3.0  # grey levels added to the contrast, so that flat images are compared by their colour
_ROWS: Final = 2048  # of the larger set at a time: the products of a block stay below 100 MB


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of n images: names, SHA-256 of size and RGB pixels, and RGB thumbnails (n, SIDE, SIDE, 3) from 0 to 255."""

    ids: tuple[str, ...]
    exact: tuple[str, ...]
    thumbnails: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """One picture that is in both sets: its names there, and how far apart they are (0.0 where pixels are equal)."""

    left: str
    right: str
    apart: float
    mirrored: bool = False


def of_images(ids: Iterable[str], images: Iterable[Image.Image]) -> Fingerprints:
    """The fingerprints of images of any size and mode."""
    exact, thumbnails = [], []
    for image in images:
        colour = image.convert("RGB")
        seen = hashlib.sha256(f"{colour.width}x{colour.height}:".encode())
        seen.update(colour.tobytes())
        exact.append(seen.hexdigest())
        thumbnails.append(np.asarray(colour.resize((SIDE, SIDE), Image.Resampling.HAMMING), np.float32))
    stacked = np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE, 3), np.float32)
    return Fingerprints(tuple(ids), tuple(exact), stacked)


def matches(left: Fingerprints, right: Fingerprints) -> tuple[Match, ...]:
    """Every image of `right` that is a picture of `left`, with the nearest one of it."""
    places = {mark: at for at, mark in enumerate(left.exact)}
    found = dict(_alike(left, right))
    found |= {
        at: Match(left.ids[places[mark]], right.ids[at], 0.0) for at, mark in enumerate(right.exact) if mark in places
    }
    return tuple(found[at] for at in sorted(found))


def _alike(left: Fingerprints, right: Fingerprints) -> Iterator[tuple[int, Match]]:
    count = len(left.ids)
    if not count:
        return
    known = np.concatenate([left.thumbnails, left.thumbnails[:, :, ::-1]]).reshape(2 * count, -1)
    spread = (left.thumbnails - left.thumbnails.mean((1, 2), keepdims=True)).reshape(count, -1).std(1) + _NOISE
    scale = np.concatenate([spread, spread]) * np.sqrt(known.shape[1])
    lengths = np.square(known).sum(1)
    for start in range(0, len(right.ids), _ROWS):
        rows = right.thumbnails[start : start + _ROWS].reshape(-1, known.shape[1])
        squares = np.square(rows).sum(1)[:, None] + lengths - 2 * rows @ known.T
        apart = np.sqrt(np.maximum(squares, 0)) / scale
        nearest = apart.argmin(axis=1)
        for row in np.flatnonzero(apart[np.arange(len(rows)), nearest] <= APART):
            mirrored, at = divmod(int(nearest[row]), count)
            place = start + int(row)
            far = float(apart[row, nearest[row]])
            yield place, Match(left.ids[at], right.ids[place], far, bool(mirrored))
