"""`--set steps.0.block=64`: entries of a recipe changed from the command line, then checked like the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.core.errors import UsageError
from compress.core.names import did_you_mean
from compress.recipe import scalars, tree
from compress.recipe.document import Document


def override(document: Document, settings: Sequence[str]) -> Document:
    """A document with `path=value` applied in order. Raises UsageError for a path that is not there."""
    for setting in settings:
        written, equals, text = setting.partition("=")
        if not equals or not all(written.split(".")):
            raise UsageError("must be path=value", f"--set {setting[:80]}", "for example --set steps.0.block=64")
        document = document.with_value(_path(document.data, written), _value(text, written))
    return document


def _path(data: Any, written: str) -> tree.Path:
    """The path of an entry; all but its last key must be there, and no list grows."""
    made: tree.Path = ()
    *parents, last = written.split(".")
    for part in parents:
        key = _key(data, part, written, made)
        if key not in data and isinstance(data, dict):
            raise UsageError(f"{tree.dotted(made)} has no {part!r}", f"--set {written}", did_you_mean(part, data))
        made, data = (*made, key), data[key]
    return (*made, _key(data, last, written, made))


def _key(data: Any, part: str, written: str, at: tree.Path) -> str | int:
    """A part of a path as the key of a mapping or the index of a list."""
    if isinstance(data, dict):
        return part
    if not isinstance(data, list):
        raise UsageError(f"{tree.dotted(at)} is {scalars.shown(data)} and has no parts", f"--set {written}")
    if not part.isdecimal() or int(part[:9]) >= len(data):
        raise UsageError(f"{tree.dotted(at)} has {len(data)} entries, counted from 0", f"--set {written}")
    return int(part)


def _value(text: str, written: str) -> Any:
    grown = tree.grow(text)
    if grown.problems:
        raise UsageError(grown.problems[0].what, f"--set {written}", f"the value is read as YAML: {text[:80]!r}")
    return grown.data
