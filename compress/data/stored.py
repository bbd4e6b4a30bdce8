"""Training samples that lie somewhere: a labelled folder, tar shards, parquet files, a hub data set, or scenes.

What is not streamed is held in memory, images of tables as the bytes that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from compress.core import digest
from compress.core.errors import UsageError
from compress.core.names import did_you_mean
from compress.data import folder, tables
from compress.data.items import Lazy, Request, find
from compress.data.raw import WHERE, Raw, Rendering
from compress.data.rendered import Kind, Rendered
from compress.recipe.sources import Columns, DataSource, place
from compress.recipe.training import Feeding, Use

SPLIT: Final = "train"
FORMATS: Final = {"labels": "labels.jsonl", "webdataset": "*.tar", "parquet": "*.parquet"}
"""Readers of a folder, and the files by which each is recognized."""


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
        return _table(source, tables.hub(source, SPLIT), source.model_dump(mode="json"))
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
    return _table(source, tables.local(kind, files), told)


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


def _table(source: DataSource, opened: tables.Open, told: Mapping[str, Any]) -> Stored:
    feeding = source.feeding or Feeding()
    columns = tables.columns_of(opened, source)
    have: Use = "pairs" if columns.image and columns.text else "images" if columns.image else "captions"
    use = _used(source, have)

    def stream() -> Iterator[Raw]:
        return islice(tables.rows(opened, columns, source), source.samples)

    made = Stored(None, stream, use, digest.of_data(dict(told)))
    return made if feeding.streaming else Stored(list(made.all()), None, use, made.digest)
