"""Strict YAML documents: read with positions, decoded into models, every problem told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from compress.core import digest
from compress.core.errors import DocumentError, Problem, UsageError
from compress.core.names import did_you_mean
from compress.recipe import scalars, tree
from compress.recipe.complaints import complaints
from compress.recipe.fields import Fraction, Name, Number, PositiveInt, PositiveNumber, Seed, Strict, Text, Version

__all__ = [
    "Document",
    "Fraction",
    "Name",
    "Number",
    "PositiveInt",
    "PositiveNumber",
    "Seed",
    "Strict",
    "Text",
    "Version",
    "attempt",
    "decode",
    "parse",
    "read",
]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Document:
    """A mapping read from YAML: JSON-like data, and where in the file each entry is."""

    file: str
    data: dict[str, Any]
    marks: Mapping[tree.Path, tree.Mark] = field(repr=False)
    overridden: tuple[tree.Path, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the data in canonical JSON; white space, comments and the order of keys do not count."""
        return digest.of_data(self.data)

    def position(self, path: tree.Path) -> tree.Mark:
        """1-based line and column of an entry's key, or of the nearest parent that is in the file."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, (1, 1))

    def problem(self, path: tree.Path, what: str, hint: str = "") -> Problem:
        """Something wrong at a path, which is called `--set a.b` where the command line put it."""
        from_set = any(path[: len(each)] == each for each in self.overridden)
        name = "--set " + ".".join(map(str, path)) if from_set else tree.dotted(path)
        return Problem(*self.position(path), name, what, hint)

    def with_value(self, path: tree.Path, value: Any) -> Document:
        """The same document with one entry changed or added; its parent must be there."""
        return replace(self, data=_changed(self.data, path, value), overridden=(*self.overridden, path))


def read(path: Path) -> Document:
    """Read a YAML file. Raises UsageError where it cannot be opened, DocumentError with all that is wrong in it."""
    try:
        with path.open("rb") as opened:
            content = opened.read(tree.MAX_BYTES + 4)  # enough to see that it is too large, byte order mark or not
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(what, str(path), did_you_mean(path.name, _neighbours(path))) from None
    try:
        too_large = len(content) > tree.MAX_BYTES + 3
        return parse(content.decode("utf-8-sig", "replace" if too_large else "strict"), str(path))
    except UnicodeDecodeError as error:
        before = content[: error.start]
        mark = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise DocumentError(str(path), [Problem(*mark, "document", "is not UTF-8 text")]) from None


def parse(text: str, file: str) -> Document:
    """Read YAML text; `file` is what errors call it. Raises DocumentError with all that is wrong in it."""
    grown = tree.grow(text)
    if not grown.problems and not isinstance(grown.data, dict):
        what = f"must be a mapping of keys to values, not {scalars.shown(grown.data)}"
        grown.problems.append(Problem(1, 1, "document", what))
    if grown.problems:
        raise DocumentError(file, grown.problems)
    return Document(file, grown.data, grown.marks)


def decode(document: Document, model: type[M], root: tree.Path = ()) -> M:
    """The part of a document at `root` as a model. Raises DocumentError with every problem and its position."""
    made, problems = attempt(document, model, root)
    if made is None:
        raise DocumentError(document.file, problems)
    return made


def attempt(
    document: Document, model: type[M], root: tree.Path = (), without: tuple[str, ...] = ()
) -> tuple[M | None, list[Problem]]:
    """Like `decode`, but returns the problems, for a caller who has more to check; keys `without` are passed over."""
    try:
        data = _at(document.data, root)
    except (KeyError, IndexError, TypeError):
        return None, [document.problem(root, "is required")]
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in without}
    try:
        return model.model_validate(_frozen(data)), []
    except ValidationError as error:
        found = complaints(error, model, data)
        return None, [document.problem((*root, *each.path), each.what, each.hint) for each in found]


def _at(data: Any, path: tree.Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _frozen(data: Any) -> Any:
    """Data with tuples for lists: models are immutable, and strict validation takes no list for a tuple."""
    if isinstance(data, dict):
        return {key: _frozen(value) for key, value in data.items()}
    return tuple(map(_frozen, data)) if isinstance(data, list) else data


def _changed(data: Any, path: tree.Path, value: Any) -> Any:
    """A copy of nested data with one entry changed; what is not on the path is shared."""
    if not path:
        return value
    copy = data.copy()
    first = path[0]
    copy[first] = _changed(data[first] if len(path) > 1 else None, path[1:], value)
    return copy


def _neighbours(path: Path) -> list[str]:
    """YAML files in the folder where a file was looked for."""
    return [each.name for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
