"""Calibration data of a recipe as batches of tower inputs, preprocessed as the artifact will preprocess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from compress.core.errors import UsageError
from compress.data import runtime, source
from compress.data.items import Items, Request
from compress.data.preprocess import open_preprocess
from compress.recipe.sources import DataSource, place
from compress.steps.step import Feeds

BATCH = 16
SAMPLES = 256


@dataclass
class Calibration:
    """The data set called `calibration` in a recipe, read when the first step asks for it.

    `folder` is the float reference, whose runtime file and processor make the inputs.
    """

    spec: DataSource
    folder: Path
    roots: tuple[Path, ...]

    def feeds(self) -> Callable[[str], Feeds]:
        """A function from a tower's kind to batches of its inputs."""
        return self._batches

    @cached_property
    def items(self) -> Items:
        """Images and captions."""
        request = Request(self.spec.split or "calibration", self.spec.samples or SAMPLES, None, self.spec.seed, self.roots)
        return source.load(TypeAdapter(source.Source).validate_python(_described(self.spec)), request)

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


def _described(spec: DataSource) -> dict[str, Any]:
    """A recipe's data set as the data layer describes sources."""
    if spec.source == "scenes":
        return {"source": "scenes", **({"kinds": (spec.kind,)} if spec.kind else {})}
    columns = spec.columns
    told: dict[str, Any] = {"captions": columns.text if columns else None}
    if columns and columns.image:
        told["image"] = columns.image
    if spec.restore_aspect:
        told["restore_aspect"] = spec.restore_aspect
    if place(spec.source) == "hub":
        told.pop("restore_aspect", None)
        return {"source": "hub", "id": spec.source, "revision": spec.revision, **told}
    return {"source": "folder", "path": spec.source, **told}
