"""What the teacher says of training samples: computed once, kept on the disk by the sample's key."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.core import digest
from compress.core.progress import Progress
from compress.models.tower import Tower
from compress.steps.distill._chunk import LENGTHS
from compress.steps.distill._teachers import Feed, Teacher

Keys = NDArray[np.int64]
_KEYS: Final = "keys"


@dataclass(frozen=True, slots=True)
class Said:
    """Of n samples: embeddings (n, D), block outputs (n, tokens, width), and how many tokens each sample has."""

    embeddings: NDArray[np.float32]
    blocks: tuple[NDArray[np.float32], ...]
    lengths: NDArray[np.int64]


@dataclass
class Features:
    """The store of one tower. Below `folder`, chunks of samples; each was written whole and renamed into place."""

    teacher: Teacher
    folder: Path
    progress: Progress
    _chunks: list[list[NDArray[Any]]] = field(default_factory=list, init=False, repr=False)
    _places: dict[int, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)
    _known: set[Path] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Take in chunks that are there and not known yet, such as those of other processes."""
        for chunk in sorted(self.folder.glob("chunk-*")):
            if chunk not in self._known:
                self._take(chunk)

    def turn(self) -> None:
        """Between two epochs: take in what others have written; a teacher that nobody asks any more may rest."""
        self.refresh()
        self.teacher.rest()

    def lacks(self, keys: Keys) -> NDArray[np.intp]:
        """Places of those keys of which nothing is known yet."""
        return np.array([at for at, key in enumerate(keys.tolist()) if key not in self._places], np.intp)

    def fill(self, batches: Sequence[tuple[Keys, Feed]]) -> None:
        """Let the teacher look at samples, one batch of its inputs after the other.

        All processes have to come here, with batches or none, where the teacher is asked together.
        """
        if not batches and not self.teacher.together:
            return
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as made:
            out = Path(made) / "chunk"
            out.mkdir()
            self.teacher.say([feed for _, feed in batches], out, self.progress)
            if not batches:
                return
            np.save(out / f"{_KEYS}.npy", np.concatenate([keys for keys, _ in batches]))
            out.rename(self.folder / f"chunk-{secrets.token_hex(8)}")
        self.refresh()

    def get(self, keys: Keys) -> Said:
        """What is known of samples, in their order. Raises KeyError for one that nothing is known of."""
        where = [self._places[key] for key in keys.tolist()]
        values = range(2 + len(self.teacher.blocks))
        found = [[self._chunks[chunk][value][row] for chunk, row in where] for value in values]
        embeddings, lengths, blocks = found[0], found[1], found[2:]
        return Said(np.stack(embeddings), tuple(_stacked(each) for each in blocks), np.array(lengths, np.int64))

    def __len__(self) -> int:
        """Samples of which something is known."""
        return len(self._places)

    def _take(self, chunk: Path) -> None:
        """Open a chunk; one that is damaged is deleted, and its samples are asked for again."""
        self._known.add(chunk)
        names = ["0", LENGTHS, *(str(at + 1) for at in range(len(self.teacher.blocks)))]
        try:
            keys: Keys = np.load(chunk / f"{_KEYS}.npy", allow_pickle=False)
            held = [np.load(chunk / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names]
            if any(len(each) != len(keys) for each in held):
                raise ValueError("another number of samples")
        except (OSError, ValueError, EOFError) as error:
            self.progress.say(f"what the teacher said is damaged ({error}) and is asked for again")
            shutil.rmtree(chunk, ignore_errors=True)
            return
        self._places |= {key: (len(self._chunks), row) for row, key in enumerate(keys.tolist())}
        self._chunks.append(held)


def _stacked(rows: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Rows (tokens, width) of one array, short ones filled up with zeros."""
    longest = max(len(row) for row in rows)
    made = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for at, row in enumerate(rows):
        made[at, : len(row)] = row
    return made


def identity(tower: Tower, data: str, blocks: Sequence[str]) -> str:
    """The name of a store: it changes with the teacher, with the data and their preprocessing, and what is kept."""
    graph = digest.of_bytes(tower.graph.SerializeToString(deterministic=True))
    return digest.of_data({"teacher": graph, "data": data, "values": [tower.output, *blocks]})[:24]
