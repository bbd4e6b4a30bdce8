"""Batches as the loop takes them: in windows, in parts, and what is held out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np

from compress.core import digest
from compress.core.errors import UsageError
from compress.data.training import TrainingBatch, TrainingSet
from compress.steps.distill._features import Features, Keys
from compress.steps.distill._teachers import Feed

MOST_HELD: Final = 512
"""Samples that are enough to see whether a loss still falls."""


def held_out(data: TrainingSet, share: float) -> tuple[TrainingSet, TrainingSet | None]:
    """The data without their last samples, and these; nothing is held out of a stream, nor of too few samples."""
    samples = data.stored.samples
    count = 0 if samples is None else min(MOST_HELD, round(share * len(samples)))
    if samples is None or count == 0:
        return data, None
    cut = len(samples) - count
    if cut == 0:
        raise UsageError(f"{share:g} of {len(samples)} samples leaves none to train on", "held_out", "hold out less")
    parts = []
    for name, chosen in (("trained", samples[:cut]), ("held", samples[cut:])):
        told = digest.of_data([data.stored.digest, name, cut])
        rendered = data.feeding.rendered if name == "trained" else 0.0
        feeding = data.feeding.model_copy(update={"rendered": rendered})
        parts.append(replace(data, stored=replace(data.stored, samples=chosen, digest=told), feeding=feeding))
    return parts[0], parts[1]


def windows(batches: Iterator[TrainingBatch], length: int) -> Iterator[list[TrainingBatch]]:
    """So many batches at once; the last ones may be fewer."""
    while window := list(islice(batches, length)):
        yield window


def ask(window: Iterable[TrainingBatch], features: Mapping[str, Features]) -> None:
    """Let the teacher look at those samples of some batches that it has not seen yet."""
    for kind, store in features.items():
        asked: list[tuple[Keys, Feed]] = []
        seen: set[int] = set()
        for batch in window:
            if kind not in batch.feeds:
                continue
            keys = batch.keys[batch.rows[kind]]
            new = {int(keys[at]): at for at in store.lacks(keys).tolist() if int(keys[at]) not in seen}
            seen.update(new)
            if new:
                rows = np.array(list(new.values()))
                asked.append((keys[rows], {name: value[rows] for name, value in batch.feeds[kind].items()}))
        store.fill(asked)


def parts(batch: TrainingBatch, count: int) -> list[TrainingBatch]:
    """A batch in so many parts. Raises UsageError where it cannot be divided."""
    if count == 1:
        return [batch]
    if len(batch.keys) % count:
        raise UsageError(f"{len(batch.keys)} samples cannot be divided into {count} parts", "accumulate")
    size = len(batch.keys) // count
    made = []
    for start in range(0, len(batch.keys), size):
        feeds, rows = {}, {}
        for kind, places in batch.rows.items():
            chosen = (places >= start) & (places < start + size)
            rows[kind] = places[chosen] - start
            feeds[kind] = {name: value[chosen] for name, value in batch.feeds[kind].items()}
        made.append(TrainingBatch(batch.keys[start : start + size], feeds, rows))
    return made
