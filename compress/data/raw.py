"""Training samples before they are decoded: what workers are sent, small and picklable, and how it is opened."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from compress.core.errors import UsageError
from compress.data import folder, opening, rendered
from compress.data.items import Texts
from compress.data.rendered import Kind

WHERE: Final = "data.training"
"""Where a recipe says what is trained on."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A scene that is rendered when it is opened; it gives the sample its caption as well."""

    kind: Kind
    split: str
    seed: int
    index: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A sample: what it is called, its image (a file, the bytes of one, or a scene; None for none), its captions.

    `aspect` is the width and height that a stretched image had.
    """

    name: str
    image: Path | bytes | Rendering | None
    texts: Texts = ()
    aspect: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A sample whose image is decoded as RGB, in its own size."""

    image: Image.Image | None
    texts: Texts


class Opener:
    """Opens samples; the scenes that were rendered last are kept, for rendering one costs more than a step on it."""

    _KEPT = 8192  # scenes of 12 kB

    def __init__(self) -> None:
        self._scenes: dict[Rendering, Opened] = {}

    def open(self, raw: Raw) -> Opened:
        """A sample with its image. Raises UsageError for one that is no image or cut off."""
        if isinstance(raw.image, Rendering):
            return self._scene(raw.image)
        if isinstance(raw.image, bytes):
            image = opening.read(io.BytesIO(raw.image), raw.name)
            return Opened(folder.restored(image, raw.aspect), raw.texts)
        if raw.image is not None:
            return Opened(folder.opened(raw.image, raw.aspect), raw.texts)
        return Opened(None, raw.texts)

    def _scene(self, asked: Rendering) -> Opened:
        if asked not in self._scenes:
            made = rendered.scene(asked.kind, asked.split, asked.seed, asked.index)
            if len(self._scenes) >= self._KEPT:
                self._scenes.pop(next(iter(self._scenes)))
            self._scenes[asked] = Opened(Image.fromarray(made.image), (made.caption,))
        return self._scenes[asked]


def require_some(count: int, where: str) -> None:
    """Raise UsageError where there is nothing to train on."""
    if not count:
        raise UsageError("there are no samples to train on", where, "a wrong split, folder or column?")
