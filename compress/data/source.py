"""Where images and texts come from: a recipe or a task names one of these."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.data import folder, hub, rendered
from compress.data.folder import Folder
from compress.data.hub import Hub
from compress.data.items import Items, Request
from compress.data.rendered import Rendered
from compress.recipe.sources import Columns, DataSource, place

Source = Annotated[Rendered | Folder | Hub, Field(discriminator="source")]


def load(source: Rendered | Folder | Hub, request: Request) -> Items:
    """The items of a source. Raises EnvironmentFailure where the data are not on this machine."""
    match source:
        case Rendered():
            return rendered.load(source, request)
        case Folder():
            return folder.load(source, request)
        case Hub():
            return hub.load(source, request)


def load_named(asked: DataSource, roots: tuple[Path, ...], progress: Progress) -> Items:
    """The items of a recipe's `data:` entry. Raises UsageError for a hub revision that is not a full commit."""
    request = Request(asked.split or "calibration", asked.samples, None, asked.seed, roots, progress)
    return load(_spec(asked), request)


def _spec(asked: DataSource) -> Rendered | Folder | Hub:
    if asked.source == "scenes":
        if asked.samples is None:
            raise UsageError("scenes never end: say how many `samples`", "data")
        return Rendered.model_validate({"kinds": (asked.kind,)} if asked.kind else {})
    columns = asked.columns or Columns()
    told = {"captions": columns.text, "columns": (columns.label,) if columns.label else ()}
    if columns.image is not None:
        told["image"] = columns.image
    if place(asked.source) == "hub":
        split = {"split": asked.split} if asked.split else {}
        return Hub.model_validate({"id": asked.source, "revision": asked.revision, **split, **told})
    return Folder.model_validate({"path": asked.source, "restore_aspect": asked.restore_aspect, **told})
