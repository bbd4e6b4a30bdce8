"""Training data for the towers of tiny_towers: noise and random tokens by key, without preprocessing."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import tiny_towers

from compress.data import order
from compress.data.order import Share
from compress.data.training import TrainingBatch
from compress.recipe.training import Feeding


def stored(count, use="pairs", seed=3):
    """As many samples: what a key is made of."""
    return Stored(tuple(range(count)), use, f"tiny {count} {use} {seed}")


@dataclass(frozen=True)
class Stored:
    """Samples are numbers, which are the keys as well."""

    samples: Any
    use: str
    digest: str


@dataclass
class TinySet:
    """As much of a TrainingSet as a training step reads; `made` counts the batches."""

    stored: Stored
    feeding: Any = field(default_factory=Feeding)
    seed: int = 0
    made: Any = field(default_factory=lambda: SimpleNamespace(batches=0))

    use = property(lambda self: self.stored.use)
    digest = property(lambda self: self.stored.digest)
    streamed = False

    def __len__(self):
        return len(self.stored.samples)

    def steps(self, batch):
        return order.steps(len(self), batch)

    def batches(self, epoch, batch, share=None, start=0):
        mine = share or Share()
        mine.require(batch)
        turns = order.permutation(len(self), self.seed, epoch)
        for step in range(start, self.steps(batch)):
            self.made.batches += 1
            places = order.taken(turns, step, batch)[mine.rank :: mine.world]
            keys = np.array([self.stored.samples[int(at)] for at in places], np.int64)
            feeds = {kind: feed(kind, keys) for kind in ("vision", "text") if wanted(kind, self.use)}
            yield TrainingBatch(keys, feeds, {kind: np.arange(len(keys)) for kind in feeds})


def wanted(kind, use):
    return use == "pairs" or (use == "images") == (kind == "vision")


def feed(kind, keys):
    """The inputs of samples, each made from its key alone."""
    rng = [np.random.default_rng((int(key), kind == "vision")) for key in keys]
    if kind == "vision":
        side = tiny_towers.SIDE
        return {"pixel_values": np.stack([each.normal(size=(3, side, side)) for each in rng]).astype(np.float32)}
    return {"input_ids": np.stack([each.integers(0, tiny_towers.VOCABULARY, 7) for each in rng])}
