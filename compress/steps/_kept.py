"""Calibration batches that are prepared once and read again and again, for methods that try one thing after another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.models.tower import Encoder
from compress.steps._activations import stored
from compress.steps.step import Context, Feeds

Batch = Mapping[str, NDArray[np.generic]]


@contextmanager
def kept(encoder: Encoder, kinds: tuple[str, ...], context: Context) -> Iterator[Context]:
    """The same context with batches that lie in files, and a memory: that of the search which asks, if one does.

    Raises UsageError where there is no calibration data.
    """
    if context.feeds is None:
        raise UsageError(
            "this step needs calibration data", "data.calibration", "add data: {calibration: {source: ...}}"
        )
    with tempfile.TemporaryDirectory() as made:
        paths: dict[str, list[str]] = {}
        for kind in kinds:
            (Path(made) / kind).mkdir()
            paths[kind] = stored(encoder.towers[kind], context, Path(made) / kind)

        def feeds(kind: str) -> Feeds:
            for path in paths[kind]:
                with np.load(path, allow_pickle=False) as batch:
                    yield dict(batch)

        yield replace(context, feeds=feeds, memory=context.memory or Path(made) / "memory")


def half(context: Context, which: int) -> Context:
    """The context with every second sample of each batch; 1 gives those that no ridge is fitted to.

    All samples where batches hold fewer than four, because then there are no two others.
    """
    whole = context.feeds
    assert whole is not None

    def feeds(kind: str) -> Feeds:
        for batch in whole(kind):
            several = all(len(values) > 3 for values in batch.values())
            yield {name: values[which::2] if several else values for name, values in batch.items()}

    return replace(context, feeds=feeds)


def thinned(context: Context, kinds: Iterable[str], count: int) -> Context:
    """The context with every k-th batch, so that at least `count` samples are left, and less than twice as many.

    Not the first ones: what comes from several sources comes one after the other.
    """
    whole = context.feeds
    assert whole is not None
    sizes = {kind: sum(len(next(iter(batch.values()))) for batch in whole(kind)) for kind in kinds}

    def feeds(kind: str) -> Feeds:
        return islice(whole(kind), 0, None, max(1, sizes[kind] // count))

    return replace(context, feeds=feeds)
