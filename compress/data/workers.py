"""Worker processes that make batches ahead of the training loop, in the order in which they were planned."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from compress.core.errors import CompressError, ResourceExhausted
from compress.data.making import Broken, Maker, Making, Planned, TrainingBatch

_AHEAD: Final = 2  # batches that each worker makes ahead
_MOST: Final = 4
Rows = Sequence[Planned]


class Workers:
    """Makes batches in `count` processes, or in this one where that is 0. Processes start with the first batch."""

    def __init__(self, making: Making, count: int) -> None:
        self._making, self._count = making, count
        self._plans = _Plans()
        self._maker: Maker | None = None
        self._loader: Any = None

    @staticmethod
    def usual() -> int:
        """As many as leave a core to the loop, at most 4."""
        return min(_MOST, max(1, len(os.sched_getaffinity(0)) - 1))

    def map(self, rows: Iterable[Rows]) -> Iterator[TrainingBatch]:
        """The batch of each of the rows, in their order. Raises what a worker raised."""
        if not self._count:
            self._maker = self._maker or Maker(self._making)
            yield from map(self._maker.make, rows)
            return
        self._plans.rows = iter(rows)
        try:
            for made in self._started():
                if isinstance(made, CompressError):
                    raise made
                yield _batch(made)
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise ResourceExhausted(
                    f"a worker process died: {error}", "data.training.feeding.workers", "use fewer, or free memory"
                ) from error
            raise

    def close(self) -> None:
        """End the processes."""
        self._loader = self._maker = None

    def _started(self) -> Any:
        from torch.utils.data import DataLoader

        if self._loader is None:
            self._loader = DataLoader(
                _Made(self._making),  # type: ignore[arg-type]
                batch_size=None,
                sampler=self._plans,
                num_workers=self._count,
                prefetch_factor=_AHEAD,
                persistent_workers=True,
                multiprocessing_context="spawn",  # a fork would copy the threads of torch and of the tokenizer
            )
        return self._loader


class _Plans:
    """What is to be made next; the loader asks for it again in every epoch."""

    rows: Iterator[Rows] = iter(())

    def __iter__(self) -> Iterator[Rows]:
        return self.rows


class _Made:
    """What a worker holds. Its `items` are asked for by their plan."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._maker: Maker | None = None

    def __getitem__(self, rows: Rows) -> Any:
        import torch

        if self._maker is None:
            torch.set_num_threads(1)
            self._maker = Maker(self._making)
        try:
            made = self._maker.make(rows)
        except CompressError as error:
            return error  # raised by the loop, which has the words; a worker would send a traceback
        feeds = {
            kind: {name: torch.from_numpy(each) for name, each in feed.items()} for kind, feed in made.feeds.items()
        }
        rows_of = {kind: torch.from_numpy(each) for kind, each in made.rows.items()}
        told = [(each.name, each.reason) for each in made.broken]
        return {"keys": torch.from_numpy(made.keys), "feeds": feeds, "rows": rows_of, "broken": told}


def _batch(made: Any) -> TrainingBatch:
    """What came from a worker by shared memory."""
    feeds = {kind: {name: each.numpy() for name, each in feed.items()} for kind, feed in made["feeds"].items()}
    rows = {kind: each.numpy() for kind, each in made["rows"].items()}
    return TrainingBatch(made["keys"].numpy(), feeds, rows, tuple(Broken(*each) for each in made["broken"]))
