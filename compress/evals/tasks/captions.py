"""Choose the true caption of an image among wrong ones that differ in a character, a colour or a relation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from compress.core.errors import UsageError
from compress.data import source
from compress.data.items import Request
from compress.evals.ranking import true_candidate
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec, places, with_default
from compress.gates.outcomes import Outcomes


class Spec(TaskSpec):
    """Captions of one kind of scene, or of a data set that has wrong captions as well."""

    kind: Literal["captions"]


def load(spec: Spec, request: Request) -> TaskData:
    """Images with their candidates, the true one first. Raises UsageError for an image without wrong captions."""
    items = source.load(spec.data, with_default(spec, request))
    rows = [(true[0], *wrong) for true, wrong in zip(items.captions, items.negatives, strict=True) if true and wrong]
    if len(rows) != len(items.ids):
        raise UsageError("some images have no true or no wrong caption", spec.name)
    place = places(text for row in rows for text in row)
    candidates = np.full((len(rows), max(map(len, rows), default=1)), -1, np.int64)
    for at, row in enumerate(rows):
        candidates[at, : len(row)] = [place[text] for text in row]
    return TaskData(items.images, tuple(place), items.ids, items.digest, {"candidates": candidates}, items.columns)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: an item is right when its true caption scores strictly higher than every wrong one."""
    candidates = data.arrays["candidates"]
    before, after = (true_candidate(*model.joint(), candidates) for model in (reference, candidate))
    chance = float((1 / (candidates >= 0).sum(axis=1)).mean())
    return {"accuracy": Outcomes(data.ids, before, after, slices=data.slices, chance=chance)}
