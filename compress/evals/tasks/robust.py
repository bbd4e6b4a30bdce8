"""Awkward files and texts: opened as they should be or refused, told apart, and where the reference puts them."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import Final, Literal

import numpy as np
from PIL import Image

from compress.core.score import Score
from compress.data import awkward, opening, source
from compress.data.awkward import IMAGES, TEXTS, File
from compress.data.items import Items, Lazy, Request
from compress.evals.ranking import Right, Rows, cosines, nearer, unit
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec, places, with_default
from compress.gates.outcomes import Outcomes

CASES: Final = (*IMAGES, *TEXTS)
SAME: Final = 0.999
"""Cosine from which two containers of one picture have the same embedding: alpha and CMYK are rounded."""

CHANCE: Final = 0.5


class Spec(TaskSpec):
    """Any images with captions; each is put into the next case. A case of texts takes the caption."""

    kind: Literal["robust"]


def load(spec: Spec, request: Request) -> TaskData:
    """Files that the product's own path opens, the same pictures in a plain container, awkward texts and plain ones.

    Of array `items`, a row per item: case, whether it is sound, and the places of query, same and other, in the images
    for cases of files and in the texts for cases of texts.
    """
    items = source.load(spec.data, with_default(spec, request))
    cases = [CASES[at % len(CASES)] for at in range(len(items.ids))]
    files = [at for at, case in enumerate(cases) if case in IMAGES]
    spoken = {at: _text(items, at, case) for at, case in enumerate(cases) if case in TEXTS}
    seen = hashlib.sha256(items.digest.encode())
    place = places(text for told in spoken.values() for text in told)
    rows = np.zeros((len(cases), 5), np.int64)
    for row, at in enumerate(files):
        made = _file(items, at, cases[at])
        seen.update(made.content)
        following = 2 * ((row + 1) % len(files)) + 1
        rows[at] = CASES.index(cases[at]), awkward.sound(made), 2 * row, 2 * row + 1, following
    for at, told in spoken.items():
        rows[at] = CASES.index(cases[at]), True, *(place[text] for text in told)
    images = Lazy(2 * len(files), lambda at: _opened(items, files[at // 2], cases[files[at // 2]], plain=at % 2 == 1))
    ids = tuple(f"{items.ids[at]}/{part}" for at in files for part in ("file", "plain"))
    return TaskData(images, tuple(place), ids, seen.hexdigest(), {"items": rows}, items=len(cases))


def _stream(items: Items, at: int) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(items.ids[at].encode()))


def _file(items: Items, at: int, case: str) -> File:
    return awkward.image(case, np.asarray(items.images[at]), _stream(items, at))


def _opened(items: Items, at: int, case: str, plain: bool) -> Image.Image:
    """What the model sees of an item. Of a file that has to be refused, the picture it was made from."""
    made = _file(items, at, case)
    if made.expected is None:
        return items.images[at]
    if plain:
        return Image.fromarray(made.expected)
    return opening.read(io.BytesIO(made.content), case)


def _text(items: Items, at: int, case: str) -> tuple[str, str, str]:
    """The awkward text, one that means the same, and the plain caption of another item."""
    own = items.captions[at][0]
    others = (items.captions[(at + step) % len(items.ids)][0] for step in range(1, len(items.ids)))
    other = next((text for text in others if text != own), own)  # none: a tie, which is wrong
    return *awkward.text(case, own, _stream(items, at)), other


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: right is an item that was opened or refused as it should be, whose embedding is nearer to that of
    the same content than to another's, and, for files, is the same. `cosine`, `min_cosine`: with the reference's.
    """
    rows = data.arrays["items"]
    ids = tuple(f"item-{at}" for at in range(len(rows)))
    names = tuple(CASES[case] for case in rows[:, 0])
    before, after = (_right(model, data) for model in (reference, candidate))
    kept, slices = _kept(data, reference, candidate)
    lowest = float(kept.min())
    everything = (*data.ids, *(f"text-{at}" for at in range(len(data.texts))))
    return {
        "accuracy": Outcomes(ids, before, after, slices={"case": names}, chance=CHANCE),
        "cosine": Outcomes(everything, np.ones(len(kept)), kept, binary=False, slices={"case": slices}),
        "min_cosine": Score(lowest, lowest, lowest, len(kept)),
    }


def _right(model: Embeddings, data: TaskData) -> Right:
    rows = data.arrays["items"]
    images, texts = unit(model.images), unit(model.texts)
    right = np.zeros(len(rows))
    of_files = rows[:, 0] < len(IMAGES)
    for kind, told in ((of_files, images), (~of_files, texts)):
        query, same, other = (told[rows[kind, part]] for part in (2, 3, 4))
        right[kind] = nearer(query, same, other)
        if told is images:
            right[kind] *= cosines(query, same) >= SAME
    made: Right = right * rows[:, 1]
    return made


def _kept(data: TaskData, reference: Embeddings, candidate: Embeddings) -> tuple[Rows, tuple[str, ...]]:
    """The cosine of each image and text with the reference's, and the case it belongs to."""
    case: dict[tuple[bool, int], str] = {}
    for number, _, *triple in data.arrays["items"]:
        for at in triple[::-1]:
            case[number < len(IMAGES), int(at)] = "plain" if at != triple[0] else CASES[number]
    pairs = ((reference.images, candidate.images), (reference.texts, candidate.texts))
    kept = np.concatenate([cosines(unit(old), unit(new)) for old, new in pairs])
    sizes = ((True, len(data.ids)), (False, len(data.texts)))
    return kept, tuple(case.get((kind, at), "plain") for kind, size in sizes for at in range(size))
