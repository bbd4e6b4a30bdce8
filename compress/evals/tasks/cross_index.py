"""An index that stays while the encoder changes, or the other way round: recall across two models, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import CompressError
from compress.core.score import Score
from compress.data.items import Lazy, Request
from compress.data.views import view
from compress.evals import index, intervals
from compress.evals.ranking import Right, Rows, unit
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec
from compress.evals.tasks import retrieval
from compress.gates.outcomes import Outcomes

KS: Final = (1, 10)


class Spec(TaskSpec):
    """Images with captions. Each caption and another view of each image is a query; what belongs to it is known."""

    kind: Literal["cross_index"]


@dataclass(frozen=True, slots=True)
class _Search:
    """One kind of query: what the queries are called, which image each hangs on, and what is true of each."""

    items: tuple[str, ...]
    clusters: tuple[str, ...] | None
    positive: NDArray[np.bool_]


def load(spec: Spec, request: Request) -> TaskData:
    """The gallery and its captions, as in retrieval; then a view of each image, in the same order."""
    found = retrieval.load(retrieval.Spec.model_construct(**{**dict(spec), "kind": "retrieval"}), request)
    number, images = len(found.ids), found.images
    both = Lazy(2 * number, lambda at: images[at] if at < number else view(images[at - number], at - number))
    ids = (*found.ids, *(f"view of {name}" for name in found.ids))
    return replace(found, images=both, ids=ids, arrays={**found.arrays, "gallery": np.array([number])}, items=number)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """Recall at 1 and 10, by captions and by views: `new_queries` in the reference's index, the reference's queries in
    `new_index`, `both_new`; each paired with the reference in its own index, and as a `_ratio` to it.
    """
    if reference.images.shape[1] != candidate.images.shape[1]:
        shapes = f"{reference.images.shape[1]} and {candidate.images.shape[1]}"
        raise CompressError(f"one index cannot hold both: {shapes} dimensions")
    number = int(data.arrays["gallery"][0])
    vectors = [(unit(model.images[:number]), _queries(model, number)) for model in (reference, candidate)]
    searches = _searches(data, number)
    kinds = [kind for kind in searches if all(kind in asked for _, asked in vectors)]
    right = _right(vectors, {kind: searches[kind] for kind in kinds})
    return dict(_measures({kind: searches[kind] for kind in kinds}, right))


def _queries(model: Embeddings, number: int) -> dict[str, Rows]:
    """Unit queries by kind: captions, where they share a space with the images, and views."""
    told = {"text": unit(model.texts)} if model.texts.shape[1] == model.images.shape[1] else {}
    return {**told, "image": unit(model.images[number:])}


def _searches(data: TaskData, number: int) -> dict[str, _Search]:
    positive = np.zeros((len(data.texts), number), bool)
    images, texts = data.arrays["pairs"].T
    positive[texts, images] = True
    names = tuple(f"text-{at}" for at in range(len(data.texts)))
    clusters = tuple(data.ids[at] for at in positive.argmax(axis=1))
    views = _Search(data.ids[number:], None, np.eye(number, dtype=bool))
    return {"text": _Search(names, clusters, positive), "image": views}


def _right(
    vectors: list[tuple[Rows, dict[str, Rows]]], searches: dict[str, _Search]
) -> dict[tuple[str, int, int, int], Right]:
    """Right or wrong by kind, model of the queries (0 reference, 1 candidate), model of the index, and k."""
    made = {}
    limit = max(index.reach(search.positive, max(KS)) for search in searches.values())
    asked = [(kind, model) for kind in searches for model in (0, 1)]
    galleries = [gallery for gallery, _ in vectors]
    every = index.neighbours(galleries, [vectors[model][1][kind] for kind, model in asked], limit)
    for held, (gallery, found) in enumerate(zip(galleries, every, strict=True)):
        for (kind, model), ids in zip(asked, found, strict=True):
            for k in KS:
                queries, positive = vectors[model][1][kind], searches[kind].positive
                made[kind, model, held, k] = index.recall(gallery, queries, ids, positive, k)
    return made


def _measures(
    searches: dict[str, _Search], right: dict[tuple[str, int, int, int], Right]
) -> Iterator[tuple[str, Outcomes | Score]]:
    which = index.name()
    for kind, search in searches.items():
        for k in KS:
            for name, model, held in (("new_queries", 1, 0), ("new_index", 0, 1), ("both_new", 1, 1)):
                outcomes = Outcomes(
                    search.items,
                    right[kind, 0, 0, k],
                    right[kind, model, held, k],
                    slices={"index": (which,) * len(search.items)},
                    clusters=search.clusters,
                    chance=_constant(search.positive, k),
                )
                yield f"{kind}_{name}_r{k}", outcomes
                yield f"{kind}_{name}_r{k}_ratio", intervals.ratio(outcomes)


def _constant(positive: NDArray[np.bool_], k: int) -> float:
    """The most that one list of k items for every query, or a random one, can be right about."""
    shares = np.sort(positive.mean(axis=0))[::-1]
    drawn = float((1 - (1 - positive.mean(axis=1)) ** k).mean())
    return min(1.0, max(float(shares[:k].sum()), drawn))
