"""Calibration data of a recipe as batches of tower inputs, preprocessed as the artifact will preprocess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.data import runtime
from compress.data.items import Items
from compress.data.preprocess import open_preprocess
from compress.pipeline.provenance import items
from compress.recipe.sources import DataSource
from compress.steps.step import Feeds

BATCH = 16


@dataclass
class Calibration:
    """The data set called `calibration` in a recipe, read when the first step asks for it.

    `folder` is the float reference, whose runtime file and processor make the inputs.
    """

    spec: DataSource
    folder: Path
    roots: tuple[Path, ...]
    progress: Progress

    def feeds(self) -> Callable[[str], Feeds]:
        """A function from a tower's kind to batches of its inputs."""
        return self._batches

    @cached_property
    def items(self) -> Items:
        """Images and captions."""
        return items(self.spec, self.roots, self.progress)

    def _batches(self, kind: str) -> Iterator[Mapping[str, NDArray[np.generic]]]:
        shipped = runtime.read(self.folder)
        preprocess = open_preprocess(self.folder, shipped)
        tower = getattr(shipped.towers, kind)
        if kind == "vision":
            for at in range(0, len(self.items.images), BATCH):
                images = [self.items.images[place] for place in range(at, min(at + BATCH, len(self.items.images)))]
                yield {tower.input: preprocess.images(images)}
            return
        texts = list(dict.fromkeys(text for told in self.items.captions for text in told))
        if not texts:
            raise UsageError("the calibration data hold no texts", "data.calibration.columns.text", "name their column")
        for at in range(0, len(texts), BATCH):
            ids, mask = preprocess.texts(texts[at : at + BATCH])
            yield {tower.input: ids, **({tower.mask: mask} if tower.mask else {})}
