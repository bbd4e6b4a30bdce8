"""What every source of data gives: images made when asked for, with what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from PIL import Image

from compress.core.errors import EnvironmentFailure
from compress.core.progress import Progress, Silent

T = TypeVar("T")
Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Which items, and how many: `items` in all, `items_per_slice` at least in every slice of rendered scenes.

    Relative paths of data folders are looked for below each of `roots`. The same request gives the same items.
    """

    split: str = "release"
    items: int | None = None
    items_per_slice: int | None = None
    seed: int = 0
    roots: tuple[Path, ...] = (Path(),)
    progress: Progress = field(default_factory=Silent, compare=False)

    def data(self) -> dict[str, Any]:
        """As JSON-like data, without the progress display."""
        roots = [str(root.resolve()) for root in self.roots]
        return {
            "split": self.split, "items": self.items, "items_per_slice": self.items_per_slice,
            "seed": self.seed, "roots": roots,
        }  # fmt: skip

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Request:
        """The request that `data()` described."""
        return cls(**{**data, "roots": tuple(map(Path, data["roots"]))})


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are made anew whenever they are asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Lazy[T]: ...
    def __getitem__(self, at: int | slice) -> T | Lazy[T]:
        if isinstance(at, slice):
            chosen = range(self._count)[at]
            return Lazy(len(chosen), lambda place: self._make(chosen[place]))
        return self._make(range(self._count)[at])


@dataclass(frozen=True, slots=True)
class Items:
    """Images with their true captions, wrong captions, and named columns (slices or labels), all in the same order.

    `digest` changes with any byte of any of it.
    """

    ids: tuple[str, ...]
    images: Sequence[Image.Image]
    captions: tuple[Texts, ...]
    negatives: tuple[Texts, ...]
    columns: Mapping[str, tuple[str, ...]]
    digest: str


def find(path: str, roots: Iterable[Path]) -> Path:
    """A data folder by its path or below one of the roots. Raises EnvironmentFailure where it is nowhere."""
    tried = [root / path for root in roots]
    found = next((each for each in tried if each.is_dir()), None)
    if found is None:
        places = ", ".join(str(each) for each in tried)
        raise EnvironmentFailure(
            f"the data folder {path!r} is not there (looked for {places})",
            hint="name the folder that holds it with --data-root",
        )
    return found
