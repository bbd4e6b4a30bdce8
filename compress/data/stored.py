"""Training samples that lie somewhere: a labelled folder, tar shards, parquet files, a hub data set, or scenes.

Tables are read by `datasets` in passing; what is not streamed is then held in memory, images as the bytes they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from compress.core import digest
from compress.core.errors import EnvironmentFailure, UsageError
from compress.core.names import did_you_mean
from compress.data import folder
from compress.data.items import Lazy, Request, find
from compress.data.raw import Raw, Rendering
from compress.data.rendered import Kind, Rendered
from compress.recipe.sources import Columns, DataSource, place
from compress.recipe.training import Feeding, Use

WHERE: Final = "data.training"
SPLIT: Final = "train"
FORMATS: Final = {"labels": "labels.jsonl", "webdataset": "*.tar", "parquet": "*.parquet"}
"""Readers of a folder, and the files by which each is recognized."""

_IMAGES: Final = ("jpg", "jpeg", "png", "webp", "image", "img")
_TEXTS: Final = ("txt", "text", "caption")
Open = Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Stored:
    """Samples as a sequence, or as a stream that can be read again from its start; what they have; their digest."""

    samples: Sequence[Raw] | None
    stream: Callable[[], Iterator[Raw]] | None
    use: Use
    digest: str

    def all(self) -> Iterator[Raw]:
        """Every sample, in the order that it has where it lies."""
        yield from self.samples if self.samples is not None else self.stream() if self.stream else ()


def stored(source: DataSource, roots: tuple[Path, ...]) -> Stored:
    """The samples of a recipe's `training:`.

    Raises UsageError for a column that is missing, a format that is not clear, or no samples at all;
    EnvironmentFailure for data that are not here.
    """
    if source.source == "scenes":
        return _scenes(source)
    if place(source.source) == "hub":
        return _table(source, _hub(source), source.model_dump(mode="json"))
    where = find(source.source, roots)
    kind = source.kind or _recognized(where)
    if kind == "labels":
        return _labelled(source, roots)
    if kind not in FORMATS:
        raise UsageError(f"no reader {kind!r}", f"{WHERE}.kind", did_you_mean(kind, FORMATS))
    files = sorted(str(each) for each in where.glob(FORMATS[kind]))
    if not files:
        raise UsageError(f"the folder holds no {FORMATS[kind]}", str(where))
    marks = [digest.of_file(Path(each)) for each in files]
    told = {"files": marks, "source": source.model_dump(mode="json", exclude={"source"})}
    return _table(source, _local(kind, files), told)


def _recognized(where: Path) -> str:
    found = [kind for kind, pattern in FORMATS.items() if next(where.glob(pattern), None)]
    if len(found) != 1:
        patterns = ", ".join(FORMATS.values())
        hint = f"`kind` says which is meant: {', '.join(FORMATS)}"
        raise UsageError(f"the folder holds {len(found)} of {patterns}, and one is needed", str(where), hint)
    return found[0]


def _scenes(source: DataSource) -> Stored:
    if source.samples is None:
        raise UsageError("scenes never end: say how many `samples`", WHERE)
    if (feeding := source.feeding) and feeding.streaming:
        raise UsageError("scenes are rendered when they are needed", f"{WHERE}.feeding.streaming", "leave it out")
    kinds = Rendered.model_validate({"kinds": (source.kind,)} if source.kind else {}).kinds
    split, seed = source.split or SPLIT, source.seed

    def made(at: int) -> Raw:
        kind: Kind = kinds[at % len(kinds)]
        index = at // len(kinds)
        return Raw(f"{kind}-{split}-{seed}-{index}", Rendering(kind, split, seed, index))

    return Stored(Lazy(source.samples, made), None, _used(source, "pairs"), digest.of_data(_told(source, SPLIT)))


def _told(source: DataSource, split: str) -> dict[str, Any]:
    data = source.model_dump(mode="json", exclude={"feeding"})
    return {**data, "split": source.split or split}


def _used(source: DataSource, have: Use) -> Use:
    """What is used of the samples: all they have unless the recipe says less."""
    use = source.feeding.use if source.feeding and source.feeding.use else have
    if have not in {use, "pairs"}:
        hint = "`columns.text` names the column of captions" if have == "images" else "`columns.image` names the images"
        raise UsageError(f"the data have {have} and no {use}", f"{WHERE}.feeding.use", hint)
    return use


def _labelled(source: DataSource, roots: tuple[Path, ...]) -> Stored:
    """A folder with a labels file; images are opened when they are needed."""
    columns = source.columns or Columns()
    use = _used(source, "pairs" if columns.text else "images")
    request = Request(source.split or "all", source.samples, None, source.seed, roots)
    spec = folder.Folder(path=source.source, captions=columns.text, image=columns.image or "file")
    if use == "captions":
        return _captions(spec, request)
    rows = folder.listed(spec, request)
    samples = [Raw(name, file, texts, source.restore_aspect) for name, file, texts in rows.each()]
    return Stored(samples, None, use, rows.digest)


def _captions(spec: folder.Folder, request: Request) -> Stored:
    """The captions of a labels file, whose rows need no images."""
    if request.split != "all":
        raise UsageError("captions alone have no splits", f"{WHERE}.split", "leave it out")
    file = find(spec.path, request.roots) / spec.labels
    rows = folder.rows_of(file)
    kept = [rows[at] for at in folder.chosen(len(rows), request)]
    texts = folder.texts_of(kept, spec.captions, str(file))
    return Stored([Raw(str(at), None, told) for at, told in enumerate(texts)], None, "captions", digest.of_data(texts))


def _local(kind: str, files: list[str]) -> Open:
    def opened() -> Any:
        import datasets

        return datasets.load_dataset(kind, data_files=files, split="train", streaming=True)

    return opened


def _hub(source: DataSource) -> Open:
    def opened() -> Any:
        import datasets

        try:
            return datasets.load_dataset(
                source.source,
                revision=source.revision,
                split=source.split or SPLIT,
                streaming=source.feeding is not None and source.feeding.streaming,
            )
        except (OSError, datasets.exceptions.DatasetNotFoundError) as error:  # connection errors are OSErrors
            raise EnvironmentFailure(
                f"the data set {source.source} cannot be reached and is not in the local cache ({error})",
                WHERE,
                "what is streamed is never in the cache; point the recipe at a folder of its parquet files",
            ) from error

    return opened


def _table(source: DataSource, opened: Open, told: Mapping[str, Any]) -> Stored:
    feeding = source.feeding or Feeding()
    columns = _columns(opened, source)
    have: Use = "pairs" if columns.image and columns.text else "images" if columns.image else "captions"
    use = _used(source, have)

    def stream() -> Iterator[Raw]:
        return islice(_rows(opened, columns, source), source.samples)

    made = Stored(None, stream, use, digest.of_data(dict(told)))
    return made if feeding.streaming else Stored(list(made.all()), None, use, made.digest)


def _columns(opened: Open, source: DataSource) -> Columns:
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


def _rows(opened: Open, columns: Columns, source: DataSource) -> Iterator[Raw]:
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
