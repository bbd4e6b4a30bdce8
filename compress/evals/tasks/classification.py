"""Classification by an encoder that ends in class logits: the class with the strictly highest one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from compress.core import digest, names
from compress.core.errors import CompressError, UsageError
from compress.data import listing, source
from compress.data.items import Request
from compress.data.listing import Listing
from compress.evals.ranking import Right, strictly_best
from compress.evals.task import Embeddings, Index, Measured, TaskData, TaskSpec, with_default
from compress.gates.outcomes import Outcomes
from compress.recipe.document import Strict


class Classes(Strict):
    """`column` is the label of an image; `names` lists all classes in the order of the logits.

    `names` is a file of evals/data with one class per line, or a list below a data root.
    """

    column: str
    names: str | Listing = Field(union_mode="left_to_right")


class Spec(TaskSpec):
    """Images with a class each, for a vision tower that gives one number for each class."""

    kind: Literal["classification"]
    classes: Classes


def load(spec: Spec, request: Request) -> TaskData:
    """Images and the class of each, no texts. Raises UsageError for an image of a class that is not listed."""
    items = source.load(spec.data, with_default(spec, request))
    if spec.classes.column not in items.columns:
        hint = ", ".join(items.columns)
        raise UsageError(f"classes.column {spec.classes.column!r} is not among data.columns", spec.name, hint)
    labels, classes = items.columns[spec.classes.column], _classes(spec.classes.names, request)
    number = {name: at for at, name in enumerate(classes)}
    if strange := set(labels) - set(number):
        raise UsageError(f"images of classes that are not among the {len(classes)}: {sorted(strange)[:5]}", spec.name)
    arrays = {
        "labels": np.array([number[label] for label in labels], np.int64),
        "classes": np.array([len(classes)], np.int64),
    }
    mark = digest.of_data({"items": items.digest, "classes": list(classes)})
    return TaskData(items.images, (), items.ids, mark, arrays, items.columns)


def _classes(named: str | Listing, request: Request) -> tuple[str, ...]:
    if isinstance(named, Listing):
        return listing.read(named, request.roots)
    return tuple(names.bundled("evals", "data", named).read_text(encoding="utf-8").splitlines())


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: ties and NaN are wrong; chance is the largest class."""
    labels, count = data.arrays["labels"], int(data.arrays["classes"][0])
    before, after = (_right(model, labels, count) for model in (reference, candidate))
    chance = float(np.bincount(labels).max() / len(labels))
    return {"accuracy": Outcomes(data.ids, before, after, slices=data.slices, chance=chance)}


def _right(model: Embeddings, labels: Index, count: int) -> Right:
    logits = np.asarray(model.images, np.float64)
    if logits.shape[1] != count:
        raise CompressError(f"the vision tower gives {logits.shape[1]} numbers an image, there are {count} classes")
    return strictly_best(logits, labels)
