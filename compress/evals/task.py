"""A task: a versioned YAML file that says what is measured, and the code file of its kind that measures it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core import digest, names
from compress.core.errors import CompressError, DocumentError, UsageError
from compress.core.score import Score
from compress.data.items import Request
from compress.data.source import Source
from compress.evals.ranking import Rows, unit
from compress.gates.outcomes import Outcomes
from compress.recipe import document
from compress.recipe.document import Name, PositiveInt, Strict, Text

KINDS = "compress.evals.tasks"
Measured = Mapping[str, Outcomes | Score]
Index = NDArray[np.int64]


class TaskSpec(Strict):
    """What every task file says.

    `items` is how many are measured where a policy does not say, and that many there must be; None: all there are.
    """

    version: Literal[1]
    name: Name
    kind: str
    description: Text
    data: Source
    items: PositiveInt | None = None
    metrics: dict[str, Text]


@dataclass(frozen=True, slots=True)
class TaskData:
    """What is to be encoded, each text once, and how answers are read off: `arrays` belong to the kind.

    `ids` name the images; `slices` give, per dimension, the slice of each image. `digest` covers all of it. `points`
    (m, 3) are an image's place, x and y in ten-thousandths, where a task wants patch tokens; None where it wants none.
    `items` is how many items a policy would count, where that is another number than the images'.
    """

    images: Sequence[Image.Image]
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    digest: str
    arrays: Mapping[str, Index] = field(default_factory=dict)
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    points: Index | None = None
    items: int | None = None

    @property
    def count(self) -> int:
        """How many items there are, as a policy counts them."""
        return len(self.ids) if self.items is None else self.items


ALONE: Final = 32
"""How many items of each tower are encoded once alone and once in a batch."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What one model made of a task's data: images (n, D) and texts (m, D), float32, as the towers gave them.

    A model without a text tower (or vision tower), and a task without texts, has D = 0 there. D counts all numbers of
    an item, whatever their shape was: what a recognizer says is (classes * steps), a classifier's logits (classes).
    `batch_cosine` is the lowest cosine between an item encoded alone and in a batch; None where it was not measured.
    `tokens` (m, width) are those at the task's points, out of a square grid of `grid` patches a side.
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    logit_scale: float = 1.0
    batch_cosine: float | None = None
    tokens: NDArray[np.float32] | None = None
    grid: int = 0

    def joint(self) -> tuple[Rows, Rows]:
        """Unit images and texts in their common space. Raises CompressError where there is none."""
        if self.images.shape[1] != self.texts.shape[1]:
            shapes = f"{self.images.shape[1]} and {self.texts.shape[1]} dimensions"
            raise CompressError(f"images and texts have no common space: {shapes}")
        return unit(self.images), unit(self.texts)


S_contra = TypeVar("S_contra", bound=TaskSpec, contravariant=True)


class Kind(Protocol[S_contra]):
    """The code file of a kind of task."""

    Spec: type[TaskSpec]

    def load(self, spec: S_contra, request: Request) -> TaskData:
        """The data of the task; the same request gives the same data."""
        ...

    def measure(self, data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
        """Every metric the task file names, without the task's name in front."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A task file with the code of its kind."""

    spec: TaskSpec
    file: Path
    kind: Kind[Any]

    def load(self, request: Request) -> TaskData:
        """The data, with a digest that covers the task file as well. Raises UsageError where there is nothing."""
        found = self.kind.load(self.spec, request)
        if not len(found.images):
            raise UsageError("has no items", self.spec.name)
        told = {"data": found.digest, "spec": self.spec.model_dump(mode="json"), "texts": list(found.texts)}
        return replace(found, digest=digest.of_data(told))

    def measure(self, data: TaskData, reference: Embeddings, candidate: Embeddings) -> Measured:
        """Outcomes and scores by metric name."""
        return self.kind.measure(data, reference, candidate)


def task_names(folders: Iterable[Path] = ()) -> tuple[str, ...]:
    """Names of the tasks that ship with the package and of those in further folders."""
    places = (names.bundled("evals", "tasks"), *folders)
    return tuple(sorted({path.stem for place in places for path in place.glob("*.yaml")}))


def find(name: str, folders: Iterable[Path] = ()) -> Task:
    """The task of a name. Raises UsageError where there is none, DocumentError where its file is wrong."""
    folders = tuple(folders)
    places = (names.bundled("evals", "tasks"), *folders)
    known = task_names(folders)
    if name not in known:
        raise UsageError(f"no task {name!r}", hint=names.did_you_mean(name, known))
    return read(next(path for place in places if (path := place / f"{name}.yaml").is_file()))


def read(file: Path) -> Task:
    """The task in a file."""
    found = document.read(file)
    try:
        kind: Any = names.load(KINDS, str(found.data.get("kind", "")))
    except KeyError as error:
        problem = found.problem(
            ("kind",), "must be a kind of task", str(error.args[0]) or ", ".join(names.available(KINDS))
        )
        raise DocumentError(str(file), [problem]) from None
    spec = document.decode(found, kind.Spec)
    if spec.name != file.stem:
        raise UsageError(f"is called {spec.name!r} inside; a task has the name of its file", str(file))
    return Task(spec, file, kind)


def with_default(spec: TaskSpec, request: Request) -> Request:
    """The request, with the task's own number of items where it asks for none."""
    if request.items is not None or request.items_per_slice is not None:
        return request
    return Request(request.split, spec.items, None, request.seed, request.roots, request.progress)


def places(texts: Iterable[str]) -> dict[str, int]:
    """Each text once, with its place in order of first appearance."""
    return {text: at for at, text in enumerate(dict.fromkeys(texts))}
