"""In which order samples are seen: a function of seed and epoch, so that every process and every resumed run agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError

T = TypeVar("T")
_OWN, _RENDERED, _STREAM = range(3)
SHUFFLED: Final = 4096
"""Samples of a stream that are held while they are shuffled."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which of `world` processes this is."""

    rank: int = 0
    world: int = 1

    def require(self, batch: int) -> None:
        """Raise UsageError where a batch cannot be divided among the processes."""
        if batch < 1 or batch % self.world:
            hint = f"use a multiple of {self.world}"
            raise UsageError(f"a batch of {batch} cannot be divided among {self.world} processes", "batch", hint)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows of a batch: how many are rendered text, and how many the data's own."""

    rendered: int
    own: int

    @classmethod
    def of(cls, batch: int, share: float) -> Mixture:
        """At least one of each where there are to be both and the batch has room for both."""
        rendered = 0 if share == 0 else min(batch - 1, max(1, round(share * batch)))
        return cls(rendered, batch - rendered)


def pool_size(samples: int, share: float) -> int:
    """Rendered texts that make up their share beside so many samples."""
    return 0 if share == 0 else max(1, round(samples * share / (1 - share)))


def steps(samples: int, own: int) -> int:
    """Whole batches of an epoch; a set smaller than a batch fills one by going round."""
    return max(1, samples // own)


def permutation(samples: int, seed: int, epoch: int, rendered: bool = False) -> NDArray[np.int64]:
    """The order of an epoch."""
    rng = np.random.default_rng((seed, epoch, _RENDERED if rendered else _OWN))
    return rng.permutation(samples)


def taken(order: NDArray[np.int64], step: int, rows: int) -> NDArray[np.int64]:
    """The samples of one batch, going round where the order ends."""
    places = np.arange(step * rows, (step + 1) * rows) % len(order)
    return order[places]


def shuffled(samples: Iterable[T], seed: int, epoch: int, held: int = SHUFFLED) -> Iterator[T]:
    """A stream in an order of its own for every epoch: each sample changes places with one of the `held` before it."""
    rng = np.random.default_rng((seed, epoch, _STREAM))
    waiting: list[T] = []
    for each in samples:
        if len(waiting) < held:
            waiting.append(each)
            continue
        at = int(rng.integers(held))
        waiting[at], gone = each, waiting[at]
        yield gone
    for at in rng.permutation(len(waiting)):
        yield waiting[int(at)]
