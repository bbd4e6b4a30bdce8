"""Rendered scenes as a source: any number of items with exact ground truth, made from a seed, nothing downloaded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from compress.core.errors import UsageError
from compress.core.names import did_you_mean
from compress.data.items import Items, Lazy, Request
from compress.data.scenes import (
    chart_lines,
    charts,
    codes,
    confusables,
    pins,
    rare,
    reading,
    relations,
    shapes,
    twins,
    worn,
)  # fmt: skip
from compress.data.scenes.scene import SPLITS, Scene, stream
from compress.recipe.document import Strict

Kind = Literal[
    "reading", "shapes", "relations", "pins", "charts",
    "reading_worn", "look_alikes", "rare", "chart_lines", "twins",
]  # fmt: skip
_RENDER: Final = {
    "reading": reading.render, "shapes": shapes.render, "relations": relations.render,
    "pins": pins.render, "charts": charts.render, "reading_worn": worn.render, "look_alikes": confusables.render,
    "rare": rare.render, "chart_lines": chart_lines.render, "twins": twins.render,
}  # fmt: skip
_TURNS: Final = {
    "reading": len(reading.SIZES) * len(reading.CONDITIONS) * (len(codes.LOOK_ALIKE_CLASSES) + 1),
    "shapes": len(shapes.class_names()), "relations": len(relations.KINDS), "pins": 20, "charts": 20,
    "reading_worn": worn.TURNS, "look_alikes": len(confusables.PAIRS), "rare": len(rare.PARTS),
    "chart_lines": len(chart_lines.ASKS), "twins": twins.VIEWS * len(twins.DIFFERENCES),
}  # fmt: skip
"""After how many items every slice has had its turn."""

_VIEWS: Final = {"twins": twins.VIEWS}
"""Of how many successive images that share their randomness an item of a kind is made."""


class Rendered(Strict):
    """Scenes of one or more kinds that take turns."""

    source: Literal["scenes"] = "scenes"
    kinds: tuple[Kind, ...] = Field(("reading", "shapes", "relations", "pins", "charts"), min_length=1)


def load(spec: Rendered, request: Request) -> Items:
    """The scenes of a split: whole rounds of turns until every slice has its items, or exactly the number asked for."""
    if request.items_per_slice is None:
        total = request.items or 0
        made = islice(scenes(spec, request), total)
        return gather(request.progress.track(made, f"rendering {', '.join(spec.kinds)}", total))
    least = max(request.items_per_slice, 1)
    return gather(request.progress.track(_rounds(spec, request, least), f"rendering {', '.join(spec.kinds)}"))


def scenes(spec: Rendered, request: Request) -> Iterator[tuple[str, Scene]]:
    """Identifiers and scenes without end. Raises UsageError for a split that does not exist."""
    if request.split not in SPLITS:
        raise UsageError(f"scenes have no split {request.split!r}", hint=did_you_mean(request.split, SPLITS))
    at = 0
    while True:
        kind, index = spec.kinds[at % len(spec.kinds)], at // len(spec.kinds)
        yield f"{kind}-{request.split}-{request.seed}-{index}", scene(kind, request.split, request.seed, index)
        at += 1


def scene(kind: Kind, split: str, seed: int, index: int) -> Scene:
    """One scene of a kind: the same for the same arguments, whatever else is rendered."""
    return _RENDER[kind](stream(kind, split, seed, index // _VIEWS.get(kind, 1)), split, index)


def _rounds(spec: Rendered, request: Request, least: int) -> Iterator[tuple[str, Scene]]:
    counts: Counter[tuple[str, str]] = Counter()
    length = max(_TURNS[kind] for kind in spec.kinds) * len(spec.kinds)
    endless = scenes(spec, request)
    made = 0
    while not counts or min(counts.values()) < least or made < (request.items or 0):
        for name, each in islice(endless, length):
            counts.update(each.slices.items())
            made += 1
            yield name, each


def gather(made: Iterator[tuple[str, Scene]]) -> Items:
    """Scenes as items; pixels are kept as they were rendered, 12 kB each."""
    seen = hashlib.sha256()
    ids: list[str] = []
    kept: list[Scene] = []
    for name, each in made:
        told = "\0".join((name, each.caption, *each.negatives, *each.slices.values()))
        seen.update(told.encode() + b"\0" + each.image.tobytes())
        ids.append(name)
        kept.append(each)
    pixels = np.stack([each.image for each in kept]) if kept else np.empty((0, 1, 1, 3), np.uint8)
    return Items(
        ids=tuple(ids),
        images=Lazy(len(kept), lambda at: Image.fromarray(pixels[at])),
        captions=tuple((each.caption,) for each in kept),
        negatives=tuple(each.negatives for each in kept),
        columns=_columns([each.slices for each in kept]),
        digest=seen.hexdigest(),
    )


def _columns(slices: list[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The slices that every scene has."""
    shared = [name for name in (slices[0] if slices else ()) if all(name in each for each in slices)]
    return {name: tuple(each[name] for each in slices) for name in shared}
