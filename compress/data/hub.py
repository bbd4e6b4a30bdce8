"""A Hugging Face data set as a source, pinned to one revision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from compress.core import digest
from compress.core.errors import EnvironmentFailure, UsageError
from compress.data import opening
from compress.data.folder import SPLITS, chosen, split_of, texts_of
from compress.data.items import Items, Lazy, Request
from compress.recipe.document import Strict


class Hub(Strict):
    """A data set by its id and the full commit of its repository: a name alone may mean other data tomorrow."""

    source: Literal["hub"] = "hub"
    id: str
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    subset: str | None = None
    split: str = "test"
    image: str = "image"
    captions: str | None = None
    negatives: str | None = None
    columns: tuple[str, ...] = ()


def load(spec: Hub, request: Request) -> Items:
    """The items of a data set, from the local cache or the network. Raises EnvironmentFailure where neither has it."""
    table = _table(spec)
    missing = {spec.image, *spec.columns, *filter(None, (spec.captions, spec.negatives))} - set(table.column_names)
    if missing:
        raise UsageError(f"{spec.id} has no column {sorted(missing)}", hint=f"there is {', '.join(table.column_names)}")
    places = [at for at in range(len(table)) if _belongs(spec, at, request.split)]
    keep = [places[at] for at in chosen(len(places), request)]
    rows = table.select(keep).remove_columns(spec.image)
    told = rows.to_list() if rows.column_names else [{}] * len(keep)  # nothing but images
    return Items(
        ids=tuple(f"{spec.split}-{at}" for at in keep),
        images=Lazy(len(keep), lambda at: opening.rgb(table[keep[at]][spec.image])),
        captions=texts_of(told, spec.captions, spec.id),
        negatives=texts_of(told, spec.negatives, spec.id),
        columns={name: _labels(rows.features[name], rows[name]) for name in spec.columns},
        digest=digest.of_data({"spec": spec.model_dump(mode="json"), "keep": list(keep)}),
    )


def _belongs(spec: Hub, at: int, split: str) -> bool:
    """Whether a row is of a policy's split: a hash of its place decides, as that of a file's name does in a folder."""
    return split not in SPLITS or split_of(f"{spec.split}-{at}") == split


def _table(spec: Hub) -> Any:
    import datasets

    try:
        return datasets.load_dataset(spec.id, spec.subset, revision=spec.revision, split=spec.split)
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:  # connection errors are OSErrors
        raise EnvironmentFailure(
            f"the data set {spec.id} at {spec.revision[:8]} cannot be reached and is not in the local cache ({error})",
            hint="download it where there is a network, or point the task at a folder",
        ) from error


def _labels(feature: Any, values: Any) -> tuple[str, ...]:
    """Values of a column as texts; class numbers by their names."""
    name = getattr(feature, "int2str", str)
    return tuple(str(name(value)) for value in values)
