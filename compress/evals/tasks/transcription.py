"""Transcription by a recognizer whose tower gives a class for every step: greedy CTC, exact match and characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field, NonNegativeInt
from rapidfuzz.distance import Levenshtein

from compress.core import digest
from compress.core.errors import CompressError, UsageError
from compress.data import source
from compress.data.items import Request
from compress.evals.ctc import best_path, collapsed
from compress.evals.ranking import Rows
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec, with_default
from compress.evals.text_slices import Slicing, slices_of
from compress.gates.outcomes import Outcomes
from compress.recipe.document import Text

Codes = tuple[int, ...]
_UNKNOWN: Final = -2
"""A character of the truth that is not in the alphabet: nothing a tower says is this one."""
_END: Final = -3
_GUESSES: Final = 500
"""How many of the commonest texts are tried as the answer of somebody who does not look."""


class Spec(TaskSpec):
    """Images of text with what they say in the column `text`, which has to be among `data.columns`.

    `alphabet` holds the characters in the order of the classes, the class `blank` left out. `layout` is the order in
    which the tower gives its numbers for an image.
    """

    kind: Literal["transcription"]
    text: str = "text"
    alphabet: Text
    blank: NonNegativeInt
    layout: Literal["classes_steps", "steps_classes"] = "classes_steps"
    slices: Slicing = Field(default_factory=Slicing)


def load(spec: Spec, request: Request) -> TaskData:
    """Images and the classes that their texts are made of. Raises UsageError for an empty text."""
    items = source.load(spec.data, with_default(spec, request))
    if spec.text not in items.columns:
        raise UsageError(f"text {spec.text!r} is not among data.columns", spec.name, ", ".join(items.columns))
    if spec.blank > len(spec.alphabet) or len(set(spec.alphabet)) < len(spec.alphabet):
        raise UsageError("blank lies outside of the classes, or the alphabet names a character twice", spec.name)
    texts = items.columns[spec.text]
    if not all(texts):
        raise UsageError("some images have no text", spec.name)
    number = {char: at + (at >= spec.blank) for at, char in enumerate(spec.alphabet)}
    longest = max(map(len, texts))
    rows = [[number.get(char, _UNKNOWN) for char in text] + [_END] * (longest - len(text)) for text in texts]
    arrays = {
        "targets": np.array(rows, np.int64),
        "decoding": np.array([len(spec.alphabet) + 1, spec.blank, spec.layout == "classes_steps"], np.int64),
    }
    mark = digest.of_data({"items": items.digest, "targets": rows})
    return TaskData(items.images, (), items.ids, mark, arrays, slices_of(spec.slices, texts, items.images))


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`exact`: the whole text is right. `character_accuracy`: 1 - edits / characters of all texts, which is 1 - CER.

    An item's share may be below 0 where the tower says far more than there is. A step that is tied or NaN is a wrong
    character. Chance is the best answer of somebody who says the same of every image.
    """
    targets = [tuple(int(code) for code in row if code != _END) for row in data.arrays["targets"]]
    before, after = (_said(model, data) for model in (reference, candidate))
    guess = _guess(targets)
    common = Counter(targets).most_common(1)[0][1] / len(targets)
    exact, characters = ([_scored(score, told, targets) for told in (before, after)] for score in (_exact, _characters))
    weights = np.array(list(map(len, targets)), np.float64)
    return {
        "exact": Outcomes(data.ids, exact[0], exact[1], slices=data.slices, chance=common),
        "character_accuracy": Outcomes(
            data.ids, characters[0], characters[1], binary=False, slices=data.slices, chance=guess, weights=weights
        ),
    }


def _scored(score: Callable[[Codes, Codes], float], said: Sequence[Codes], targets: Sequence[Codes]) -> Rows:
    return np.array([score(each, true) for each, true in zip(said, targets, strict=True)], np.float64)


def _said(model: Embeddings, data: TaskData) -> list[Codes]:
    """What a tower says of each image."""
    classes, blank, classes_first = (int(each) for each in data.arrays["decoding"])
    count, numbers = model.images.shape
    if not numbers or numbers % classes:
        raise CompressError(f"the vision tower gives {numbers} numbers an image, no steps of {classes} classes")
    logits = model.images.reshape(count, *((classes, -1) if classes_first else (-1, classes)))
    path = best_path(logits if classes_first else logits.swapaxes(1, 2))
    return [collapsed(row, blank) for row in path.tolist()]


def _exact(said: Codes, true: Codes) -> float:
    return float(said == true)


def _characters(said: Codes, true: Codes) -> float:
    return 1 - Levenshtein.distance(said, true) / len(true)


def _guess(targets: Sequence[Codes]) -> float:
    """Character accuracy of the best constant answer among the commonest texts."""
    length = sum(map(len, targets))
    often = Counter(targets)
    edits = (
        sum(times * Levenshtein.distance(guess, true) for true, times in often.items())
        for guess, _ in often.most_common(_GUESSES)
    )
    return 1 - min(edits) / length
