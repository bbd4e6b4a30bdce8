"""Fingerprints of more images than are held at once: in files of some thousand each, kept by the digest of the data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from compress.data import fingerprint
from compress.data.fingerprint import Fingerprints

PART: Final = 4096
"""Images in a part: 55 MB at most."""

_END: Final = "end"


@dataclass(frozen=True, slots=True)
class Album:
    """Fingerprints in parts, some of them files."""

    parts: tuple[Fingerprints | Path, ...] = ()

    def chunks(self) -> Iterator[Fingerprints]:
        """Every part, one after the other in memory."""
        for part in self.parts:
            yield _read(part) if isinstance(part, Path) else part

    def __add__(self, other: Album) -> Album:
        return Album(self.parts + other.parts)


def kept(folder: Path, images: Iterable[tuple[str, Image.Image]]) -> Album:
    """The fingerprints of images, from a folder where they were kept, or made and kept there."""
    if not (folder / _END).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as made:
            fresh = Path(made) / "album"
            fresh.mkdir()
            left = iter(images)
            for at, part in enumerate(iter(lambda: list(islice(left, PART)), [])):
                _write(fresh / f"{at:06}.npz", fingerprint.of_images(*zip(*part, strict=True)))
            (fresh / _END).touch()
            if not folder.exists():
                fresh.rename(folder)
    return Album(tuple(sorted(folder.glob("*.npz"))))


def _write(file: Path, prints: Fingerprints) -> None:
    fine = [each for each in prints.fine if each is not None]
    np.savez(
        file,
        ids=np.array(prints.ids, np.str_),
        exact=np.array(prints.exact, np.str_),
        small=prints.small.astype(np.uint8),
        middle=prints.middle,
        has_fine=np.array([each is not None for each in prints.fine], np.bool_),
        fine=np.array(fine, np.uint8).reshape(-1, fingerprint.FINE, fingerprint.FINE, 3),
    )


def _read(file: Path) -> Fingerprints:
    with np.load(file, allow_pickle=False) as state:
        held = dict(state)
    fine = iter(held["fine"])
    return Fingerprints(
        tuple(map(str, held["ids"])),
        tuple(map(str, held["exact"])),
        held["small"].astype(np.float32),
        held["middle"],
        tuple(next(fine) if has else None for has in held["has_fine"]),
    )
