"""Zero-shot classification: the class whose prompts are nearest to the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StringConstraints

from compress.core import names
from compress.core.errors import UsageError
from compress.data import listing, source
from compress.data.items import Items, Lazy, Request
from compress.data.listing import Listing
from compress.data.scenes import shapes
from compress.evals import drift
from compress.evals.ranking import Rows, similarities, strictly_best, unit
from compress.evals.task import Embeddings, Index, Measured, TaskData, TaskSpec, places, with_default
from compress.gates.outcomes import Outcomes
from compress.recipe.document import Strict, Text


class Classes(Strict):
    """Class names and how they are put to the model.

    `column` is the label of an image. `names` is a file of evals/data with one class per line, or a list below a data
    root; without it the classes are the labels that occur. `rename` says how a label is worded in a prompt. `{}` or
    `{c}` in a template is the class; `templates` may be a list below a data root as well. Images of a class that is not
    listed are refused, or left out with `unlisted: skip`.
    """

    column: str
    names: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+\.txt$")] | Listing | None = None
    lower: bool = False
    rename: dict[str, Text] = Field(default_factory=dict)
    templates: Annotated[tuple[Text, ...], Field(min_length=1)] | Listing = ("{}",)
    unlisted: Literal["refuse", "skip"] = "refuse"


class Spec(TaskSpec):
    """Images with a class each. Without `classes` the data are rendered shapes, which know their own."""

    kind: Literal["zero_shot"]
    classes: Classes | None = None


def load(spec: Spec, request: Request) -> TaskData:
    """Images, every prompt of every class, and the class of each."""
    items = source.load(spec.data, with_default(spec, request))
    if spec.classes is None:
        classes, templates, labels = _shapes(items, request.split)
    else:
        classes, templates, labels = _labelled(items, spec.classes, request)
        if spec.classes.unlisted == "skip":
            items, labels = _listed(items, labels, set(classes))
    number = {name: at for at, name in enumerate(classes)}
    if strange := set(labels) - set(number):
        raise UsageError(f"images of classes that are not among the {len(classes)}: {sorted(strange)[:5]}", spec.name)
    prompts = [_prompt(template, name, spec.name) for name in classes for template in templates]
    place = places(prompts)
    arrays = {
        "labels": np.array([number[label] for label in labels], np.int64),
        "prompts": np.array([place[prompt] for prompt in prompts], np.int64).reshape(len(classes), len(templates)),
    }
    return TaskData(
        items.images, tuple(place), items.ids, items.digest, arrays, items.columns if spec.classes is None else {}
    )


def _shapes(items: Items, split: str) -> tuple[Sequence[str], Sequence[str], list[str]]:
    classes, templates = shapes.class_names(), shapes.TEMPLATES[split]
    named = {template.format(name): name for template in templates for name in classes}
    return classes, templates, [named[captions[0]] for captions in items.captions]


def _prompt(template: str, name: str, where: str) -> str:
    mark = next((each for each in ("{}", "{c}") if each in template), None)
    if mark is None:
        raise UsageError(f"the template {template!r} has no place for the class", where, "write {} or {c} there")
    return template.replace(mark, name)


def _listed(items: Items, labels: Sequence[str], classes: set[str]) -> tuple[Items, list[str]]:
    """The items whose class is listed."""
    keep = [at for at, label in enumerate(labels) if label in classes]
    left = Items(
        ids=tuple(items.ids[at] for at in keep),
        images=Lazy(len(keep), lambda at: items.images[keep[at]]),
        captions=tuple(items.captions[at] for at in keep),
        negatives=tuple(items.negatives[at] for at in keep),
        columns={name: tuple(column[at] for at in keep) for name, column in items.columns.items()},
        digest=items.digest,
    )
    return left, [labels[at] for at in keep]


def _labelled(items: Items, spec: Classes, request: Request) -> tuple[Sequence[str], Sequence[str], list[str]]:
    if spec.column not in items.columns:
        raise UsageError(f"classes.column {spec.column!r} is not among data.columns", hint=", ".join(items.columns))
    labels = items.columns[spec.column]
    every: Sequence[str] = sorted(set(labels))
    if isinstance(spec.names, Listing):
        every = listing.read(spec.names, request.roots)
    elif spec.names is not None:
        every = names.bundled("evals", "data", spec.names).read_text(encoding="utf-8").splitlines()
    templates = spec.templates
    if isinstance(templates, Listing):
        templates = listing.read(templates, request.roots)

    def worded(label: str) -> str:
        known = label.lower() if spec.lower else label
        return spec.rename.get(known, known)

    classes = tuple(dict.fromkeys(map(worded, every)))  # two classes of one name are one: no prompt tells them apart
    return classes, templates, [worded(label) for label in labels]


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: right is a class that scores strictly higher than all others; chance is the largest class.

    The rest is what a threshold on the scores would notice: see drift.py.
    """
    labels, prompts = data.arrays["labels"], data.arrays["prompts"]
    old, new = (_scores(model, prompts) for model in (reference, candidate))
    chance = np.bincount(labels).max() / len(labels)
    right, still = (strictly_best(scores, labels) for scores in (old, new))
    kept = drift.rank_correlations(old, new)
    before, after = drift.answers(old, reference.logit_scale, labels), drift.answers(new, candidate.logit_scale, labels)
    return {
        "accuracy": Outcomes(data.ids, right, still, slices=data.slices, chance=float(chance)),
        "ece": drift.calibration_error(after),
        "ece_drift": drift.calibration_drift(before, after),
        "confidence_drift": drift.confidence_drift(before, after),
        "rank_correlation": Outcomes(data.ids, np.ones(len(kept)), kept, binary=False),
    }


def _scores(model: Embeddings, prompts: Index) -> Rows:
    images, texts = model.joint()
    return similarities(images, class_vectors(texts, prompts))


def class_vectors(texts: Rows, prompts: Index) -> Rows:
    """One direction per class: the mean of its unit prompt vectors (arXiv:2103.00020, 3.1.4)."""
    return unit(texts[prompts].mean(axis=1))
