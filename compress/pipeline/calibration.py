"""Calibration data of a recipe as batches of tower inputs, preprocessed as the artifact will preprocess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.items import Items
from compress.data.preprocess import open_preprocess
from compress.steps.step import Feeds

BATCH = 16


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration items as batches. `folder` is the float reference, whose runtime file and processor make inputs."""

    items: Items
    folder: Path

    def feeds(self) -> Callable[[str], Feeds]:
        """A function from a tower's kind to batches of its inputs."""
        return self._batches

    def pairs(self) -> tuple[tuple[int, ...], ...]:
        """For each image, the places of its captions among the texts as `feeds` gives them."""
        places = {text: at for at, text in enumerate(self._texts())}
        return tuple(tuple(dict.fromkeys(places[text] for text in told)) for told in self.items.captions)

    def _texts(self) -> list[str]:
        return list(dict.fromkeys(text for told in self.items.captions for text in told))

    def _batches(self, kind: str) -> Iterator[Mapping[str, NDArray[np.generic]]]:
        shipped = runtime.read(self.folder)
        preprocess = open_preprocess(self.folder, shipped)
        tower = getattr(shipped.towers, kind)
        if kind == "vision":
            for at in range(0, len(self.items.images), BATCH):
                images = [self.items.images[place] for place in range(at, min(at + BATCH, len(self.items.images)))]
                yield {tower.input: preprocess.images(images)}
            return
        texts = self._texts()
        if not texts:
            raise UsageError("the calibration data hold no texts", "data.calibration.columns.text", "name their column")
        for at in range(0, len(texts), BATCH):
            ids, mask = preprocess.texts(texts[at : at + BATCH])
            yield {tower.input: ids, **({tower.mask: mask} if tower.mask else {})}
