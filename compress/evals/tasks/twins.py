"""Tell an object from its near twin by images alone: a second view of it has to be nearer than the twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import numpy as np

from compress.core.errors import UsageError
from compress.data import source
from compress.data.items import Items, Request
from compress.data.rendered import Rendered
from compress.data.scenes.twins import PARTS, VIEWS
from compress.evals.ranking import Right, nearer, unit
from compress.evals.task import Embeddings, Index, Measured, TaskData, TaskSpec, with_default
from compress.gates.outcomes import Outcomes

CHANCE: Final = 0.5


class Spec(TaskSpec):
    """Images in threes: an object, the same again, its twin. The column `part` says which is which.

    `items` counts threes. In a folder the three follow each other; further columns are slices.
    """

    kind: Literal["twins"]


def load(spec: Spec, request: Request) -> TaskData:
    """All images and, in `triples` (n, 3), the places of query, same and twin. There are no texts."""
    request = with_default(spec, request)
    if isinstance(spec.data, Rendered):
        items, least = (None if n is None else VIEWS * n for n in (request.items, request.items_per_slice))
        request = replace(request, items=items, items_per_slice=least)
    found = source.load(spec.data, request)
    _check(found, spec.name)
    triples = np.arange(len(found.ids), dtype=np.int64).reshape(-1, VIEWS)
    slices = {name: labels for name, labels in found.columns.items() if name != "part"}
    return TaskData(found.images, (), found.ids, found.digest, {"triples": triples}, slices, items=len(triples))


def _check(items: Items, name: str) -> None:
    parts = items.columns.get("part", ())
    if parts != PARTS * (len(items.ids) // VIEWS):
        raise UsageError(f"images have to come in threes whose column `part` says {', '.join(PARTS)}", name)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: right where the query is strictly nearer to its second view than to the twin."""
    triples = data.arrays["triples"]
    before, after = (_right(model, triples) for model in (reference, candidate))
    queries = triples[:, 0]
    ids = tuple(data.ids[at] for at in queries)
    slices = {name: tuple(labels[at] for at in queries) for name, labels in data.slices.items()}
    return {"accuracy": Outcomes(ids, before, after, slices=slices, chance=CHANCE)}


def _right(model: Embeddings, triples: Index) -> Right:
    return nearer(*(unit(model.images)[triples[:, part]] for part in range(VIEWS)))
