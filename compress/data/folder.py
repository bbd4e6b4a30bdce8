"""A local folder as a source: `labels.jsonl` with one object per image, `file` relative to the folder."""

from __future__ import annotations

import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image
from pydantic import PositiveInt

from compress.core import digest
from compress.core.errors import UsageError
from compress.data import opening
from compress.data.items import Items, Lazy, Request, Texts, find
from compress.recipe.document import Strict

SPLITS: Final = ("calibration", "development", "release")
"""What a hash puts an item into where the data do not say; any other split is everything."""


class Folder(Strict):
    """Where the folder is, and what its fields mean.

    `captions` and `negatives` hold a text or a list of texts. `columns` are kept as labels. `restore_aspect` undoes
    a stretch: [3, 4] takes square files back to three wide and four high. `lower` puts captions in lower case.
    """

    source: Literal["folder"] = "folder"
    path: str
    labels: str = "labels.jsonl"
    image: str = "file"
    captions: str | None = None
    negatives: str | None = None
    lower: bool = False
    columns: tuple[str, ...] = ()
    restore_aspect: tuple[PositiveInt, PositiveInt] | None = None
    split_by: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """The chosen rows of a labels file, their image files and captions; `digest` changes with any byte of them."""

    rows: Sequence[Mapping[str, Any]]
    names: tuple[str, ...]
    files: Sequence[Path]
    captions: tuple[Texts, ...]
    where: str
    digest: str

    def each(self) -> Iterator[tuple[str, Path, Texts]]:
        """Name, file and captions of every row."""
        yield from zip(self.names, self.files, self.captions, strict=True)


def load(spec: Folder, request: Request) -> Items:
    """The items of a folder; a seeded choice of them, in the folder's order, where fewer are asked for."""
    found = listed(spec, request)
    return Items(
        ids=found.names,
        images=Lazy(len(found.files), lambda at: opened(found.files[at], spec.restore_aspect)),
        captions=found.captions,
        negatives=_cased(texts_of(found.rows, spec.negatives, found.where), spec.lower),
        columns={name: tuple(map(str, field_of(found.rows, name, found.where))) for name in spec.columns},
        digest=found.digest,
    )


def listed(spec: Folder, request: Request) -> Listed:
    """What a folder lists, without opening an image. Raises UsageError for files that are missing or lie outside."""
    folder = find(spec.path, request.roots)
    where = str(folder / spec.labels)
    every = _of_split(rows_of(folder / spec.labels), spec, request.split, where)
    rows = [every[at] for at in chosen(len(every), request)]
    names = [str(name) for name in field_of(rows, spec.image, where)]
    files = [_inside(folder, name) for name in names]
    marks = [digest.of_file(file) for file in files]
    told = {"files": marks, "rows": [str(sorted(row.items())) for row in rows]}
    return Listed(
        rows,
        unlike(names),
        files,
        _cased(texts_of(rows, spec.captions, where), spec.lower),
        where,
        digest.of_data({**told, "spec": spec.model_dump(mode="json", exclude={"path"})}),
    )


def rows_of(labels: Path) -> list[dict[str, Any]]:
    """The rows of a labels file, read by `datasets` without leaving a cache beside the data."""
    import datasets

    if not labels.is_file():
        raise UsageError("there is no such labels file", str(labels))
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # one table of labels is read at once, and stderr belongs to our own display
    try:
        with tempfile.TemporaryDirectory() as cache:
            table = datasets.load_dataset(
                "json", data_files=str(labels), split="train", cache_dir=cache, keep_in_memory=True
            )
            rows: list[dict[str, Any]] = table.to_list()
    except (datasets.exceptions.DatasetGenerationError, StopIteration) as error:  # the latter where it is empty
        raise UsageError(f"is no list of JSON objects: {error.__cause__ or error}", str(labels)) from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    return rows


def _of_split(rows: Sequence[Mapping[str, Any]], spec: Folder, split: str, where: str) -> list[Mapping[str, Any]]:
    """The rows of a split; `all` is every row."""
    if split == "all":
        return list(rows)
    if spec.split_by is not None:
        told = [str(each) for each in field_of(rows, spec.split_by, where)]
    else:
        told = [split_of(str(name)) for name in field_of(rows, spec.image, where)]
    return [row for row, belongs in zip(rows, told, strict=True) if belongs == split]


def split_of(name: str) -> str:
    """The split of a file by a hash of its name: a tenth calibrates, three are for development, the rest decides."""
    point = zlib.crc32(b"folder:" + name.encode()) % 10
    return "calibration" if point == 0 else "development" if point < 4 else "release"


def chosen(count: int, request: Request) -> tuple[int, ...]:
    """Places of the items to use: all, or a seeded choice in ascending order."""
    if request.items is None or request.items >= count:
        return tuple(range(count))
    order = np.random.default_rng(request.seed).permutation(count)[: request.items]
    return tuple(int(at) for at in np.sort(order))


def unlike(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that occur again with a number: an image may be listed more than once."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        made.append(f"{name}#{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return tuple(made)


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in path.parts[len(folder.parts) :]:
        raise UsageError(f"{name!r} lies outside of the data folder", str(folder))
    if not path.is_file():
        raise UsageError(f"{name!r} is listed but not there", str(folder))
    return path


def field_of(rows: Sequence[Mapping[str, Any]], name: str, where: str) -> list[Any]:
    """The values of one field. Raises UsageError where a row has none."""
    if any(row.get(name) is None for row in rows):
        raise UsageError(f"not every item has {name!r}", where, f"there is {', '.join(rows[0])}")
    return [row[name] for row in rows]


def texts_of(rows: Sequence[Mapping[str, Any]], name: str | None, where: str) -> tuple[Texts, ...]:
    """A field that holds a text or a list of texts, as tuples; empty tuples where no field is named."""
    if name is None:
        return ((),) * len(rows)
    values = field_of(rows, name, where)
    return tuple((value,) if isinstance(value, str) else tuple(map(str, value)) for value in values)


def _cased(texts: tuple[Texts, ...], lower: bool) -> tuple[Texts, ...]:
    return tuple(tuple(text.lower() for text in each) for each in texts) if lower else texts


def opened(file: Path, aspect: tuple[int, int] | None) -> Image.Image:
    """A file as RGB, taken back to the aspect (wide, high) it had before it was stretched; never enlarged.

    Raises UsageError for a file that is no whole image.
    """
    return restored(opening.read(file, str(file)), aspect)


def restored(image: Image.Image, aspect: tuple[int, int] | None) -> Image.Image:
    """An image taken back to the aspect (wide, high) it had before it was stretched; never enlarged."""
    if aspect is None:
        return image
    unit = min(image.width / aspect[0], image.height / aspect[1])
    return image.resize((round(unit * aspect[0]), round(unit * aspect[1])), Image.Resampling.BICUBIC)
