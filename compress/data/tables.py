"""Tables of samples, read in passing by `datasets`: tar shards, parquet files, data sets of the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from compress.core.errors import EnvironmentFailure, UsageError
from compress.data.raw import WHERE, Raw
from compress.recipe.sources import Columns, DataSource

Open = Callable[[], Iterable[Mapping[str, Any]]]
"""Opens a table at its start."""

_IMAGES: Final = ("jpg", "jpeg", "png", "webp", "image", "img")
_TEXTS: Final = ("txt", "text", "caption")


def local(kind: str, files: list[str]) -> Open:
    """Files of a format that `datasets` reads."""

    def opened() -> Any:
        import datasets

        return datasets.load_dataset(kind, data_files=files, split="train", streaming=True)

    return opened


def hub(source: DataSource, split: str) -> Open:
    """A data set of the hub; raises EnvironmentFailure when it is opened and not to be had."""

    def opened() -> Any:
        import datasets

        try:
            return datasets.load_dataset(
                source.source,
                revision=source.revision,
                split=source.split or split,
                streaming=source.feeding is not None and source.feeding.streaming,
            )
        except (OSError, datasets.exceptions.DatasetNotFoundError) as error:  # connection errors are OSErrors
            raise EnvironmentFailure(
                f"the data set {source.source} cannot be reached and is not in the local cache ({error})",
                WHERE,
                "what is streamed is never in the cache; point the recipe at a folder of its parquet files",
            ) from error

    return opened


def columns_of(opened: Open, source: DataSource) -> Columns:
    """Columns by name, or found among the usual names. Raises UsageError for one that is not there, or for none."""
    there = _names(opened, source)
    asked = source.columns or Columns()
    only = source.feeding.use if source.feeding else None
    found = {
        "image": asked.image or next((name for name in _IMAGES if name in there), None),
        "text": asked.text or next((name for name in _TEXTS if name in there), None),
    }
    for key, name in found.items():
        if name is not None and name.split(".")[0] not in there:
            hint = f"there is {', '.join(sorted(there))}"
            raise UsageError(f"the data have no column {name!r}", f"{WHERE}.columns.{key}", hint)
    if only == "images":
        found["text"] = None
    if only == "captions":
        found["image"] = None
    if found["image"] is None and found["text"] is None:
        hint = f"name them below `columns`; there is {', '.join(sorted(there))}"
        raise UsageError("no column looks like images or captions", f"{WHERE}.columns", hint)
    return Columns(**found)


def _names(opened: Open, source: DataSource) -> set[str]:
    """Names of the columns, from the features where they are told, else from the first row."""
    with _read_errors(source):
        table: Any = opened()
        if getattr(table, "features", None):
            return set(table.features)
        first = next(iter(table), None)
    if first is None:
        raise UsageError("there are no samples to train on", source.source)
    return set(first)


def rows(opened: Open, columns: Columns, source: DataSource) -> Iterator[Raw]:
    """The samples of a table, one after the other. Raises UsageError for a file that is damaged."""
    import datasets

    with _read_errors(source):
        table: Any = opened()
        if columns.image and isinstance((table.features or {}).get(columns.image), datasets.Image):
            table = table.cast_column(columns.image, datasets.Image(decode=False))
        for at, row in enumerate(table):
            name = str(row.get("__key__", at))
            image = _bytes(row.get(columns.image), columns.image, source) if columns.image else None
            yield Raw(name, image, _texts(row, columns.text, source.source), source.restore_aspect)


def _bytes(value: Any, column: str, source: DataSource) -> bytes:
    """The bytes of an image; none at all where the row has none, which counts as broken when it is opened."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is not None and not isinstance(value, bytes):
        hint = f"it holds {type(value).__name__}; a folder with labels.jsonl lists image files"
        raise UsageError(f"the column {column!r} holds no images", source.source, hint)
    return value or b""


def _texts(row: Mapping[str, Any], column: str | None, where: str) -> tuple[str, ...]:
    """The captions of a row, none where there are none; `json.caption` looks into a column."""
    value: Any = row
    for part in column.split(".") if column else ():
        value = value.get(part) if isinstance(value, Mapping) else None
    if column is None or value is None:
        return ()
    told = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else None
    if told is None or not all(isinstance(each, str) for each in told):
        raise UsageError(f"the column {column!r} holds no texts", where, f"{WHERE}.columns.text")
    return tuple(each for each in told if each.strip())


class _read_errors:  # noqa: N801
    """What `datasets` and its readers raise for files that are none, told as what is wrong with the data."""

    def __init__(self, source: DataSource) -> None:
        self._where = source.source

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        import tarfile

        import datasets
        import pyarrow

        wrong = (
            tarfile.TarError, pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError, ValueError, KeyError,
        )  # fmt: skip
        if isinstance(error, wrong):
            raise UsageError(f"cannot be read: {error}", self._where, "replace the file that is damaged") from error
