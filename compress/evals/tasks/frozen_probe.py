"""A reading probe on the reference's patch tokens, applied unchanged to another's: what a frozen reader loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.core import digest
from compress.core.errors import CompressError, UsageError
from compress.data import rendered
from compress.data.items import Items, Lazy, Request
from compress.data.rendered import Rendered
from compress.data.scenes.codes import ALPHABET
from compress.data.scenes.scene import SIZE, Mark, Scene
from compress.data.tokens import FULL
from compress.evals.ranking import Rows, cosines, strictly_best, unit
from compress.evals.task import Embeddings, Index, Measured, TaskData, TaskSpec, with_default
from compress.gates.outcomes import Outcomes

_PENALTY: Final = 1.0
"""Ridge penalty on standardized tokens: what scikit-learn takes if nobody asks; thousands of characters outweigh it."""


class Spec(TaskSpec):
    """Rendered scenes with printed characters. The probe learns from as many scenes of the split `fit`."""

    kind: Literal["frozen_probe"]
    data: Rendered
    fit: Literal["development", "train"] = "development"


@dataclass(frozen=True, slots=True)
class _Probe:
    """A linear map (classes, width) of standardized tokens."""

    mean: Rows
    scale: Rows
    weights: Rows
    offset: Rows

    def scores(self, tokens: NDArray[np.float32]) -> Rows:
        """(n, classes); NaN where a token is not finite."""
        with np.errstate(invalid="ignore", over="ignore"):
            made: Rows = (tokens - self.mean) / self.scale @ self.weights.T + self.offset
        return made


def load(spec: Spec, request: Request) -> TaskData:
    """Scenes to be measured, then as many to learn from; a point at the middle of every character."""
    request = with_default(spec, request)
    if request.items is None:
        raise UsageError("a probe has as many scenes to learn from: ask for `items`, not for `items_per_slice`")
    if request.split == spec.fit:
        raise UsageError(f"the probe learns from the split {spec.fit!r}, and cannot be measured on it", spec.name)
    held, learned = (_drawn(spec.data, replace(request, split=split)) for split in (request.split, spec.fit))
    number, scenes = len(held[0].ids), (*held[1], *learned[1])
    points, labels = _points(scenes)
    parts = held[0], learned[0]
    return TaskData(
        images=Lazy(len(scenes), lambda at: parts[at >= number].images[at - number * (at >= number)]),
        texts=(),
        ids=(*parts[0].ids, *parts[1].ids),
        digest=digest.of_data([*(part.digest for part in parts), points.tolist(), labels.tolist()]),
        arrays={"labels": labels, "learned": (points[:, 0] >= number).astype(np.int64)},
        slices={name: (*labels_, *parts[1].columns[name]) for name, labels_ in parts[0].columns.items()},
        points=points,
        items=number,
    )


def _drawn(data: Rendered, request: Request) -> tuple[Items, list[tuple[Mark, ...]]]:
    """Items, and the marks of each."""
    marks: list[tuple[Mark, ...]] = []

    def noted() -> Sequence[tuple[str, Scene]]:
        made = []
        for _, (name, scene) in zip(range(request.items or 0), rendered.scenes(data, request), strict=False):
            marks.append(scene.marks)
            made.append((name, scene))
        return made

    return rendered.gather(iter(noted())), marks


def _points(scenes: Sequence[Sequence[Mark]]) -> tuple[Index, Index]:
    """Middles (m, 3) of the characters that lie inside their image, and which character each is."""
    points, labels = [], []
    for at, marks in enumerate(scenes):
        for mark in marks:
            x, y = (sum(corner[axis] for corner in mark.corners) / len(mark.corners) for axis in (0, 1))
            if mark.kind == "char" and mark.label in ALPHABET and 0 <= x < SIZE and 0 <= y < SIZE:
                points.append((at, int(x * FULL / SIZE), int(y * FULL / SIZE)))
                labels.append(ALPHABET.index(mark.label))
    return np.array(points, np.int64).reshape(-1, 3), np.array(labels, np.int64)


def measure(data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
    """`accuracy`: the probe names the character in the middle of a patch; `token_cosine`: cosine with the reference's.

    Characters that share a patch with another one are left out. Raises CompressError where the grids differ: what
    reads the tokens would get another number of them, or another width.
    """
    old, new = _tokens(reference), _tokens(candidate)
    if (reference.grid, old.shape) != (candidate.grid, new.shape) or data.points is None:
        said = f"{reference.grid} a side of width {old.shape[1]}, and {candidate.grid} of {new.shape[1]}"
        raise CompressError(f"the towers give different patch tokens: {said}")
    alone = _alone(data.points, reference.grid)
    labels, learned = data.arrays["labels"], data.arrays["learned"].astype(bool)
    probe = _fitted(old[alone & learned], labels[alone & learned])
    asked = np.flatnonzero(alone & ~learned)
    before, after = (strictly_best(probe.scores(tokens[asked]), labels[asked]) for tokens in (old, new))
    images = data.points[asked, 0]
    near = cosines(unit(old[asked]), unit(new[asked]))
    chance = float(np.bincount(labels[asked]).max() / len(asked))
    accuracy = Outcomes(
        items=tuple(f"{data.ids[image]} {place}" for image, place in zip(images, asked, strict=True)),
        reference=before,
        candidate=after,
        slices={name: tuple(each[image] for image in images) for name, each in data.slices.items()},
        clusters=tuple(data.ids[image] for image in images),
        chance=chance,
    )
    moved = replace(accuracy, reference=np.ones(len(near)), candidate=near, binary=False, chance=0.0)
    return {"accuracy": accuracy, "token_cosine": moved}


def _tokens(model: Embeddings) -> NDArray[np.float32]:
    if model.tokens is None:
        raise CompressError("there are no patch tokens")
    return model.tokens


def _alone(points: Index, grid: int) -> NDArray[np.bool_]:
    """Which characters have a patch to themselves."""
    cells = points[:, 1:] * grid // FULL
    _, place, count = np.unique(np.column_stack([points[:, 0], cells]), axis=0, return_inverse=True, return_counts=True)
    made: NDArray[np.bool_] = count[place.ravel()] == 1
    return made


def _fitted(tokens: NDArray[np.float32], labels: Index) -> _Probe:
    """A ridge classifier (one target of -1 and 1 a character), closed form, the same from the same tokens."""
    from sklearn.linear_model import RidgeClassifier

    rows = tokens.astype(np.float64)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1.0
    fitted = RidgeClassifier(alpha=_PENALTY).fit((rows - mean) / scale, labels)
    if len(fitted.classes_) < 3:
        raise CompressError(f"{len(fitted.classes_)} different characters are too few to learn from")
    weights, offset = np.zeros((len(ALPHABET), rows.shape[1])), np.full(len(ALPHABET), -np.inf)
    weights[fitted.classes_], offset[fitted.classes_] = fitted.coef_, fitted.intercept_
    return _Probe(mean, scale, weights, offset)
