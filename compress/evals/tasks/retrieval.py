"""Retrieval both ways between images and captions, and through an index that the reference made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import rendered, source
from compress.data.items import Items, Request
from compress.data.rendered import Rendered
from compress.data.scenes.scene import Scene
from compress.evals.ranking import hits, similarities
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec, places, with_default
from compress.gates.outcomes import Outcomes


class Spec(TaskSpec):
    """Images with one or more captions; a caption that several images share is true of each of them."""

    kind: Literal["retrieval"]


def load(spec: Spec, request: Request) -> TaskData:
    """Images, their captions, and the pairs that belong together. Rendered scenes have a caption each of their own."""
    request = with_default(spec, request)
    items = _unlike(spec.data, request) if isinstance(spec.data, Rendered) else source.load(spec.data, request)
    if not all(items.captions):
        raise UsageError("some images have no caption", spec.name)
    place = places(text for captions in items.captions for text in captions)
    pairs = dict.fromkeys((at, place[text]) for at, captions in enumerate(items.captions) for text in captions)
    return TaskData(
        items.images, tuple(place), items.ids, items.digest, {"pairs": np.array(list(pairs), np.int64).reshape(-1, 2)}
    )


def _unlike(data: Rendered, request: Request) -> Items:
    if request.items is None:
        raise UsageError("retrieval has no slices: ask for `items`, not for `items_per_slice`")
    made = islice(_new(rendered.scenes(data, request)), request.items)
    return rendered.gather(request.progress.track(made, "rendering a gallery", request.items))


def _new(scenes: Iterable[tuple[str, Scene]]) -> Iterator[tuple[str, Scene]]:
    """Those whose caption none before had."""
    seen: set[str] = set()
    for name, scene in scenes:
        if scene.caption not in seen:
            seen.add(scene.caption)
            yield name, scene


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """Recall at 1 and 5 in both directions, and `drop_in_r1`: new queries in an index that the reference made."""
    positive = np.zeros((len(data.ids), len(data.texts)), bool)
    positive[tuple(data.arrays["pairs"].T)] = True
    old, new = reference.joint(), candidate.joint()
    first = positive.argmax(axis=0)
    texts = tuple(f"text-{at}" for at in range(len(data.texts)))
    clusters = tuple(data.ids[at] for at in first)
    made: dict[str, Outcomes] = {}
    for k in (1, 5):
        before, after = (hits(similarities(images, told), positive, k) for images, told in (old, new))
        made[f"image_to_text_r{k}"] = Outcomes(data.ids, before, after, chance=_chance(positive, k))
        before, after = (hits(similarities(told, images), positive.T, k) for images, told in (old, new))
        made[f"text_to_image_r{k}"] = Outcomes(texts, before, after, clusters=clusters, chance=_chance(positive.T, k))
    before, after = (hits(similarities(told, old[0]), positive.T, 1) for told in (old[1], new[1]))
    made["drop_in_r1"] = Outcomes(texts, before, after, clusters=clusters, chance=_constant(positive.T))
    before, after = (hits(similarities(images, old[1]), positive, 1) for images in (old[0], new[0]))
    made["drop_in_image_r1"] = Outcomes(data.ids, before, after, chance=_constant(positive))
    return made


def _chance(positive: NDArray[np.bool_], k: int) -> float:
    """Recall of a random ranking: 1 - (1 - share of true items) to the power k, averaged over queries."""
    return float((1 - (1 - positive.mean(axis=1)) ** k).mean())


def _constant(positive: NDArray[np.bool_]) -> float:
    """Recall at 1 of the best constant query: an index that is still good answers even an encoder that is not."""
    return float(positive.mean(axis=0).max())
