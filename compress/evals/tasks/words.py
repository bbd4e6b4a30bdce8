"""Reading by choice: which of several texts, look-alikes and other words among them, does the image show?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from compress.core import digest
from compress.core.errors import UsageError
from compress.data import source
from compress.data.items import Request
from compress.evals.look_alikes import Lexicon, variants
from compress.evals.ranking import true_candidate
from compress.evals.task import Embeddings, Measured, TaskData, TaskSpec, places, with_default
from compress.evals.text_slices import Slicing, slices_of
from compress.gates.outcomes import Outcomes
from compress.recipe.document import PositiveInt, Text


class Spec(TaskSpec):
    """Images of text with what they say in the column `text`, which has to be among `data.columns`.

    Beside the true text stand `look_alikes` texts that differ in one character and `words` other texts of the data.
    `template` puts a text to the model, `{}` is the text. Items that share a value of the column `cluster`, such as
    lines of one page, are not independent.
    """

    kind: Literal["words"]
    text: str = "text"
    look_alikes: PositiveInt = 5
    words: PositiveInt = 10
    template: Text = "{}"
    cluster: str | None = None
    slices: Slicing = Field(default_factory=Slicing)


def load(spec: Spec, request: Request) -> TaskData:
    """Images with their candidates, the true one first. Raises UsageError where the data have too few other words."""
    items = source.load(spec.data, with_default(spec, request))
    if lacking := {spec.text, spec.cluster} - {None} - items.columns.keys():
        raise UsageError(f"{sorted(map(str, lacking))} not among data.columns", spec.name, ", ".join(items.columns))
    texts = items.columns[spec.text]
    lexicon = Lexicon(tuple(dict.fromkeys(texts)))
    if len(lexicon.words) <= spec.words:
        raise UsageError(f"{len(lexicon.words)} different texts are too few for {spec.words} wrong words", spec.name)
    rows = {text: _candidates(spec, text, lexicon, request.seed) for text in lexicon.words}
    place = places(spec.template.replace("{}", text) for row in rows.values() for text in row)
    told = {text: [place[spec.template.replace("{}", each)] for each in row] for text, row in rows.items()}
    arrays = {
        "candidates": np.array([told[text] for text in texts], np.int64).reshape(len(texts), -1),
        "words": np.array([1 + spec.words] * len(texts), np.int64),
    }
    if spec.cluster is not None:
        number = places(items.columns[spec.cluster])
        arrays["clusters"] = np.array([number[each] for each in items.columns[spec.cluster]], np.int64)
    mark = digest.of_data({"items": items.digest, "candidates": arrays["candidates"].tolist()})
    return TaskData(items.images, tuple(place), items.ids, mark, arrays, slices_of(spec.slices, texts, items.images))


def _candidates(spec: Spec, text: str, lexicon: Lexicon, seed: int) -> tuple[str, ...]:
    """The text, words, and look-alikes; a text without letters to exchange gets look-alikes of its neighbours."""
    made = dict.fromkeys((text, *lexicon.nearest(text, spec.words)))
    wanted = len(made) + spec.look_alikes
    for other in (each for base in tuple(made) for each in variants(base, lexicon.characters, seed)):
        made[other] = None
        if len(made) == wanted:
            return tuple(made)
    raise UsageError(f"there are too few look-alikes of {text!r}", spec.name)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: right is a true text that scores strictly higher than every other.

    Chance is that of somebody who does not look but knows the words: look-alikes are mostly none.
    """
    before, after = (true_candidate(*model.joint(), data.arrays["candidates"]) for model in (reference, candidate))
    number = data.arrays.get("clusters")
    clusters = None if number is None else tuple(f"cluster-{each}" for each in number)
    chance = float((1 / data.arrays["words"]).mean())
    return {"accuracy": Outcomes(data.ids, before, after, slices=data.slices, clusters=clusters, chance=chance)}
