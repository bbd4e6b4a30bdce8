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
FINE: Final = 56
"""Side of the thumbnails of every image, and of the larger ones of images whose shorter side is twice that or more."""

NOISE: Final = (0.15, 2.0)
"""Two thumbnails are one picture where the root mean square of their difference is at most the first number times their
contrast (standard deviation) plus the second, in grey levels.

Measured, with no false alarm in 450,000 pairs of rendered scenes (64 pixels) and 176,400 pairs of product photos (224):
all mirrored and resized copies are found (half to 1.7 times), of JPEG copies 99.7 % at quality 75 and 96 % at 50.
"""

_ROWS: Final = 2048  # of the larger set at a time: the products of a block stay below 100 MB


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of n images: names, SHA-256 of size and RGB pixels, and RGB thumbnails from 0 to 255.

    `thumbnails` is float32 (n, SIDE, SIDE, 3); `fine` holds uint8 (FINE, FINE, 3), None for images too small for it.
    """

    ids: tuple[str, ...]
    exact: tuple[str, ...]
    thumbnails: NDArray[np.float32]
    fine: tuple[NDArray[np.uint8] | None, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """One picture that is in both sets: its names there, and the difference in grey levels (0.0: all pixels equal)."""

    left: str
    right: str
    apart: float
    mirrored: bool = False


def of_images(ids: Iterable[str], images: Iterable[Image.Image]) -> Fingerprints:
    """The fingerprints of images of any size and mode."""
    exact, thumbnails, fine = [], [], []
    for image in images:
        colour = image.convert("RGB")
        seen = hashlib.sha256(f"{colour.width}x{colour.height}:".encode())
        seen.update(colour.tobytes())
        exact.append(seen.hexdigest())
        thumbnails.append(_thumbnail(colour, SIDE).astype(np.float32))
        fine.append(_thumbnail(colour, FINE) if min(colour.size) >= 2 * FINE else None)
    stacked = np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE, 3), np.float32)
    return Fingerprints(tuple(ids), tuple(exact), stacked, tuple(fine))


def _thumbnail(image: Image.Image, side: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((side, side), Image.Resampling.HAMMING))


def matches(left: Fingerprints, right: Fingerprints) -> tuple[Match, ...]:
    """Every image of `right` that is a picture of `left`, with the nearest one of it."""
    found: dict[int, Match] = {}
    for at, match in _alike(left, right):
        if at not in found or match.apart < found[at].apart:
            found[at] = match
    places = {mark: at for at, mark in enumerate(left.exact)}
    for at, mark in enumerate(right.exact):
        if mark in places:
            found[at] = Match(left.ids[places[mark]], right.ids[at], 0.0)
    return tuple(found[at] for at in sorted(found))


def _alike(left: Fingerprints, right: Fingerprints) -> Iterator[tuple[int, Match]]:
    count = len(left.ids)
    if not count:
        return
    known = np.concatenate([left.thumbnails, left.thumbnails[:, :, ::-1]]).reshape(2 * count, -1)
    spread = (left.thumbnails - left.thumbnails.mean((1, 2), keepdims=True)).reshape(count, -1).std(1)
    allowed = np.tile(NOISE[0] * spread + NOISE[1], 2)
    lengths = np.square(known).sum(1)
    for start in range(0, len(right.ids), _ROWS):
        rows = right.thumbnails[start : start + _ROWS].reshape(-1, known.shape[1])
        squares = np.square(rows).sum(1)[:, None] + lengths - 2 * rows @ known.T
        apart = np.sqrt(np.maximum(squares, 0) / known.shape[1])
        for row, at in zip(*np.nonzero(apart <= allowed), strict=True):
            mirrored, original = divmod(int(at), count)
            place = start + int(row)
            if _alike_in_detail(left.fine[original], right.fine[place], bool(mirrored)):
                yield place, Match(left.ids[original], right.ids[place], float(apart[row, at]), bool(mirrored))


def _alike_in_detail(left: NDArray[np.uint8] | None, right: NDArray[np.uint8] | None, mirrored: bool) -> bool:
    """Whether the larger thumbnails agree as well; without them, the small ones have decided."""
    if left is None or right is None:
        return True
    known = np.asarray(left[:, ::-1] if mirrored else left, np.float32)
    spread = float((known - known.mean((0, 1))).std())
    return float(np.sqrt(np.square(known - right).mean())) <= NOISE[0] * spread + NOISE[1]
