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

SIDE, MIDDLE, FINE = 16, 24, 56
"""Sides of the thumbnails: two of every image, a larger one of images whose shorter side is at least twice that."""

NOISE: Final = (0.1, 2.0)
"""Thumbnails are one picture where the root mean square of their difference is at most the first number times their
contrast (standard deviation) plus the second, in grey levels ..."""

ALIKE: Final = 0.7
"""... and where they correlate at least so much: faint print on paper of one colour differs by little, and is no copy.

benchmarks/fingerprints.py: no false alarm among 13.8 million pairs of rendered scenes and a million of product photos.
All mirrored and resized copies are found (half to 1.7 times), of JPEG copies 97.7 % at quality 75 and 94 % at 50.
"""

_ROWS: Final = 2048  # of the larger set at a time: the products of a block stay below 100 MB


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of n images: names, SHA-256 of size and RGB pixels, and RGB thumbnails from 0 to 255.

    `small` is float32 (n, SIDE, SIDE, 3), `middle` uint8 (n, MIDDLE, MIDDLE, 3); `fine` holds uint8 (FINE, FINE, 3),
    None for images too small for it.
    """

    ids: tuple[str, ...]
    exact: tuple[str, ...]
    small: NDArray[np.float32]
    middle: NDArray[np.uint8]
    fine: tuple[NDArray[np.uint8] | None, ...]

    def chunks(self) -> tuple[Fingerprints, ...]:
        """These, in one part; sets that are larger than memory have more (album.py)."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Match:
    """One picture that is in both sets: its names there, and the difference in grey levels (0.0: all pixels equal)."""

    left: str
    right: str
    apart: float
    mirrored: bool = False


def of_images(ids: Iterable[str], images: Iterable[Image.Image]) -> Fingerprints:
    """The fingerprints of images of any size and mode."""
    exact, small, middle, fine = [], [], [], []
    for image in images:
        colour = image.convert("RGB")
        seen = hashlib.sha256(f"{colour.width}x{colour.height}:".encode())
        seen.update(colour.tobytes())
        exact.append(seen.hexdigest())
        small.append(_thumbnail(colour, SIDE))
        middle.append(_thumbnail(colour, MIDDLE))
        fine.append(_thumbnail(colour, FINE) if min(colour.size) >= 2 * FINE else None)
    return Fingerprints(
        tuple(ids),
        tuple(exact),
        np.array(small, np.float32).reshape(-1, SIDE, SIDE, 3),
        np.array(middle, np.uint8).reshape(-1, MIDDLE, MIDDLE, 3),
        tuple(fine),
    )


def joined(left: Fingerprints, right: Fingerprints) -> Fingerprints:
    """Both sets as one."""
    return Fingerprints(
        left.ids + right.ids,
        left.exact + right.exact,
        np.concatenate([left.small, right.small]),
        np.concatenate([left.middle, right.middle]),
        left.fine + right.fine,
    )


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
    known = np.concatenate([left.small, left.small[:, :, ::-1]]).reshape(2 * count, -1)
    spread = (left.small - left.small.mean((1, 2), keepdims=True)).reshape(count, -1).std(1)
    allowed = np.tile(NOISE[0] * spread + NOISE[1], 2)
    lengths = np.square(known).sum(1)
    for start in range(0, len(right.ids), _ROWS):
        rows = right.small[start : start + _ROWS].reshape(-1, known.shape[1])
        squares = np.square(rows).sum(1)[:, None] + lengths - 2 * rows @ known.T
        apart = np.sqrt(np.maximum(squares, 0) / known.shape[1])
        for row, at in zip(*np.nonzero(apart <= allowed), strict=True):
            mirrored, original = divmod(int(at), count)
            place = start + int(row)
            if _confirmed(left, original, right, place, bool(mirrored)):
                yield place, Match(left.ids[original], right.ids[place], float(apart[row, at]), bool(mirrored))


def _confirmed(left: Fingerprints, original: int, right: Fingerprints, place: int, mirrored: bool) -> bool:
    """Whether the larger thumbnails agree as well."""
    turned = slice(None, None, -1 if mirrored else 1)
    if not _correlate(left.middle[original][:, turned], right.middle[place]):
        return False
    known, other = left.fine[original], right.fine[place]
    return known is None or other is None or _near(np.asarray(known[:, turned], np.float32), other)


def _correlate(known: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    a, b = (values - values.mean((0, 1)) for values in (known, other))
    spread = float(np.linalg.norm(a) * np.linalg.norm(b))  # nothing is like a blank page; its copies have equal pixels
    return spread > 0 and float((a * b).sum()) >= ALIKE * spread


def _near(known: NDArray[np.float32], other: NDArray[np.uint8]) -> bool:
    contrast = float((known - known.mean((0, 1))).std())
    return float(np.sqrt(np.square(known - other).mean())) <= NOISE[0] * contrast + NOISE[1]
