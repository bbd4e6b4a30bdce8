"""What distill steps train on: batches of tower inputs, the same for a seed and epoch in any number of processes.

    for batch in training.batches(epoch, 64, Share(rank, world), start):
        batch.feeds["vision"]["pixel_values"], batch.rows["vision"], batch.keys

A sample's `key` names its pixels and its caption: the same key is the same input in every epoch, so that what a teacher
says of it can be kept. `views` augmentations of each sample take turns with the epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from compress.core import digest
from compress.core.errors import UsageError
from compress.data import order, runtime
from compress.data.making import Broken, Making, Planned, TrainingBatch
from compress.data.order import Mixture, Share
from compress.data.raw import WHERE, Raw, Rendering, require_some
from compress.data.scenes.reading import SIZES
from compress.data.stored import Stored
from compress.data.workers import Workers
from compress.recipe.training import Feeding, Use

__all__ = ["Share", "TrainingBatch", "TrainingSet"]

_TEXTS: Final = 0x7E57
"""Keeps the rendered texts apart from scenes that are the data themselves, whose seeds are small."""

_MEANING: Final = {"use", "augment", "views", "rendered", "rendered_px"}
"""What of `feeding` decides what a key means."""

_POOL: Final = 8192
"""Rendered texts beside a stream of unknown length."""


@dataclass
class TrainingSet:
    """Training samples and how they become batches. `folder` holds the towers' preprocessing, as an artifact does.

    Raises UsageError for data without samples, or that no tower of the model can take.
    """

    stored: Stored
    feeding: Feeding
    folder: Path
    seed: int = 0
    broken: dict[str, str] = field(default_factory=dict, init=False)
    _workers: Workers | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.stored.samples is not None:
            require_some(len(self.stored.samples), WHERE)
        making = Making(self.folder, self.feeding.augment, self.use, self.seed)
        towers = runtime.read(self.folder).towers
        lacking = [kind for kind in making.kinds if getattr(towers, kind) is None]
        if len(lacking) == len(making.kinds):
            raise UsageError(f"the model has no {lacking[0]} tower, which {self.use} are for", WHERE)
        self._making = making

    @property
    def use(self) -> Use:
        """images, captions or pairs."""
        return self.stored.use

    def __len__(self) -> int:
        """Samples of an epoch without the rendered texts. Raises TypeError where they are streamed."""
        if self.stored.samples is None:
            raise TypeError("a stream has no length")
        return len(self.stored.samples)

    @property
    def streamed(self) -> bool:
        """Whether the number of samples is not known before the first epoch has ended."""
        return self.stored.samples is None

    @property
    def pool(self) -> int:
        """Rendered texts that are mixed into the batches."""
        if self.streamed:
            return _POOL if self.feeding.rendered else 0
        return order.pool_size(len(self), self.feeding.rendered)

    @property
    def keys(self) -> int | None:
        """Keys there are: 0 to keys - 1, those of rendered texts first; None where the data are streamed."""
        return None if self.streamed else (self.pool + len(self)) * self.feeding.views

    @property
    def digest(self) -> str:
        """Changes with everything that decides what a key means: data, augmentation, seed, preprocessing."""
        told = {
            "data": self.stored.digest,
            "feeding": self.feeding.model_dump(mode="json", include=_MEANING),
            "pool": self.pool,
            "seed": self.seed,
            "made": self._making.digest(),
        }
        return digest.of_data(told)

    def steps(self, batch: int) -> int | None:
        """Batches of an epoch; None where the data are streamed."""
        return None if self.streamed else order.steps(len(self), Mixture.of(batch, self.feeding.rendered).own)

    def batches(self, epoch: int, batch: int, share: Share | None = None, start: int = 0) -> Iterator[TrainingBatch]:
        """The batches of an epoch, each of `batch` samples over all processes, from number `start` on.

        A process gets every `world`-th row of each. Raises UsageError where more images are broken than may be, or
        the batch cannot be divided.
        """
        mine = share or Share()
        mine.require(batch)
        planned = islice(self._planned(epoch, batch), start, None)
        rows = (each[mine.rank :: mine.world] for each in planned)
        if self._workers is None:
            self._workers = Workers(self._making, self._workers_wanted())
        for made in self._workers.map(rows):
            self._count(made.broken)
            yield made

    def close(self) -> None:
        """End the worker processes."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def all(self) -> Iterator[Raw]:
        """Every sample of the data, once and without augmentation; the rendered texts are not among them."""
        return self.stored.all()

    def _planned(self, epoch: int, batch: int) -> Iterator[tuple[Planned, ...]]:
        """The rows of every batch: rendered texts first."""
        mixed = Mixture.of(batch, self.feeding.rendered)
        texts = order.permutation(self.pool, self.seed, epoch, rendered=True) if mixed.rendered else None
        for step, own in enumerate(self._own(epoch, mixed.own)):
            found = () if texts is None else order.taken(texts, step, mixed.rendered)
            yield (*(self._rendered(int(at), epoch) for at in found), *own)

    def _own(self, epoch: int, rows: int) -> Iterator[list[Planned]]:
        """The data's own rows of every batch."""
        samples = self.stored.samples
        if samples is not None:
            turns = order.permutation(len(samples), self.seed, epoch)
            for step in range(order.steps(len(samples), rows)):
                yield [self._plan(int(at), samples[int(at)], epoch) for at in order.taken(turns, step, rows)]
            return
        stream = order.shuffled(enumerate(self.stored.all()), self.seed, epoch)
        seen = 0
        while found := list(islice(stream, rows)):
            seen += len(found)
            if len(found) == rows or seen == len(found):  # what is left at the end is left out, unless it is all
                full = [found[at % len(found)] for at in range(rows)]
                yield [self._plan(at, raw, epoch) for at, raw in full]
        require_some(seen, WHERE)

    def _plan(self, at: int, raw: Raw, epoch: int) -> Planned:
        return Planned((self.pool + at) * self.feeding.views + epoch % self.feeding.views, raw)

    def _rendered(self, at: int, epoch: int) -> Planned:
        sizes = self.feeding.rendered_px
        index = at // len(sizes) * len(SIZES) + tuple(SIZES).index(sizes[at % len(sizes)])
        raw = Raw(f"rendered-{at}", Rendering("reading", "train", self.seed + _TEXTS, index))
        return Planned(at * self.feeding.views + epoch % self.feeding.views, raw)

    def _workers_wanted(self) -> int:
        """Those asked for; none for scenes, which are made and kept faster than they are sent."""
        if self.feeding.workers is not None:
            return self.feeding.workers
        samples = self.stored.samples
        rendered = samples is not None and isinstance(samples[0].image, Rendering | type(None))
        return 0 if rendered else Workers.usual()

    def _count(self, broken: tuple[Broken, ...]) -> None:
        """Note what could not be read. Raises UsageError where it is more than may be."""
        self.broken.update((each.name, each.reason) for each in broken)
        if len(self.broken) > self.feeding.broken:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in islice(self.broken.items(), 20))
            raise UsageError(
                f"{len(self.broken)} images cannot be read, and {self.feeding.broken} may be:\n{listed}",
                f"{WHERE}.feeding.broken",
                "replace them, or allow more",
            )
