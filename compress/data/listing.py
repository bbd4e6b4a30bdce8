"""A list of texts in a file below a data root: class names or prompts that the project does not hold itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import field_validator

from compress.core.errors import EnvironmentFailure, UsageError
from compress.recipe.fields import Strict, Text


class Listing(Strict):
    """The lines of a text file, or the list in a JSON file: the file's own, or what it has under `key`."""

    path: Text
    key: Text | None = None

    @field_validator("path")
    @classmethod
    def _below(cls, path: str) -> str:
        plain = PurePosixPath(path)
        if plain.is_absolute() or ".." in plain.parts or "\\" in path or "\0" in path:
            raise ValueError("must be a path below a data root, such as clip_text/en_classnames.json")
        return path


def read(listing: Listing, roots: Iterable[Path]) -> tuple[str, ...]:
    """The texts, in the file's order. Raises EnvironmentFailure where there is no such file, UsageError for no list."""
    tried = [root / listing.path for root in roots]
    file = next((each for each in tried if each.is_file()), None)
    if file is None:
        places = ", ".join(map(str, tried))
        hint = "name the folder that holds it with --data-root"
        raise EnvironmentFailure(f"the list {listing.path!r} is not there (looked for {places})", hint=hint)
    try:
        content = file.read_text(encoding="utf-8")
        found = json.loads(content) if file.suffix == ".json" else content.splitlines()
    except ValueError as error:
        raise UsageError(f"cannot be read as a list of texts: {error}", str(file)) from error
    return _texts(found, listing.key, str(file))


def _texts(found: Any, key: str | None, where: str) -> tuple[str, ...]:
    if key is not None:
        if not isinstance(found, dict) or key not in found:
            has = ", ".join(sorted(found)[:12]) if isinstance(found, dict) else "one list without keys"
            raise UsageError(f"has no list called {key!r}", where, f"there is {has}")
        found = found[key]
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each.strip() for each in found):
        raise UsageError("is no list of texts", where, "a `key` names one of several lists" if key is None else "")
    return tuple(found)
