"""What a user states about a model that somebody else made: the data it was calibrated on, or that there were none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from compress.recipe import document
from compress.recipe.fields import Name, Strict
from compress.recipe.sources import DataSource

NO_DATA: Final = "none"
Data = Mapping[str, DataSource]


class Statement(Strict):
    """A file that names data names some: that there were none is said by the word, not by leaving them out."""

    data: Mapping[Name, DataSource] = Field(min_length=1, description="Data sets by name, as a recipe writes them.")


def read(written: str) -> Data:
    """The data sets of a statement: of the word `none` no data, else those in the file of this path.

    Raises UsageError where there is no such file, DocumentError with all that is wrong in it.
    """
    return {} if written == NO_DATA else document.decode(document.read(Path(written)), Statement).data


def told(data: Data) -> dict[str, Any]:
    """JSON-like data for the gate report; a folder keeps its name, not where it lay here."""
    return {name: _portable(source.model_dump(mode="json", exclude_none=True)) for name, source in data.items()}


def _portable(source: dict[str, Any]) -> dict[str, Any]:
    path = Path(source["source"])
    return {**source, "source": f"./{path.name}"} if path.is_absolute() else source
