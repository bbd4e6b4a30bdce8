"""The child that times: the towers of folders in turn on the same inputs, or one folder alone for its memory."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import onnxruntime  # noqa: F401  # loaded here, so that its own memory is not counted as a tower's

from compress.data import child, rendered, runtime
from compress.data.child import Channel, Data
from compress.data.items import Items, Request
from compress.data.rendered import Rendered
from compress.data.runtime import Runtime
from compress.data.session import Encoder, Tower

Call = tuple[Tower, dict[str, Any]]

MOST: Final = 200
"""Calls of a side in a pair, at most: an empty graph is timed, too."""

LONG: Final = 50
"""Times that a caption is repeated to be longer than any tower takes."""


def work(request: Data, channel: Channel) -> Data:
    """Time `folders` in turn, or tell the memory of one (`folder`)."""
    items = rendered.load(Rendered(), Request(items=max(request["batches"])))
    return _memory(request, items) if "folder" in request else _rounds(request, items, channel)


def _memory(request: Data, items: Items) -> Data:
    before = child.restart_peak()
    encoder = _encoder(request["folder"], request["threads"])
    for tower, feed in _calls(encoder, items, max(request["batches"]), request).values():
        tower.encode(feed)
    return {"bytes": child.peak_memory() - before}


def _rounds(request: Data, items: Items, channel: Channel) -> Data:
    encoders = [_encoder(folder, request["threads"]) for folder in request["folders"]]
    channel.expect(len(request["batches"]) * len(_calls(encoders[0], items, 1, request)) * request["pairs"])
    rows = []
    for batch in request["batches"]:
        calls = [_calls(encoder, items, batch, request) for encoder in encoders]
        for tower in calls[0]:
            times = _alternate([each[tower] for each in calls], request, channel)
            rows.append({"tower": tower, "batch": batch, "times": times})
    return {"rows": rows}


def _encoder(folder: str, threads: int) -> Encoder:
    """The towers of a folder with a fixed number of threads, so that both sides get the same.

    Threads rest between runs: those of one side would take cores from the other, whose turn is next.
    """
    asked: Runtime = runtime.read(Path(folder))
    session = asked.session.model_copy(update={"intra_op_num_threads": threads})
    return Encoder(Path(folder), asked.model_copy(update={"session": session}), resting=True)


def _calls(encoder: Encoder, items: Items, batch: int, request: Data) -> dict[str, Call]:
    """What is timed, per tower: the session alone, on inputs made beforehand."""
    made: dict[str, Call] = {}
    if encoder.vision is not None and "vision" in request["towers"]:
        made["vision"] = encoder.vision, encoder.image_feed([items.images[at] for at in range(batch)])
    if encoder.text is not None and "text" in request["towers"]:
        texts = [captions[0] for captions in items.captions[:batch]]
        if request["long"]:
            texts = [_filling(encoder, text) for text in texts]
        made["text"] = encoder.text, encoder.text_feed(texts)
    return made


def _filling(encoder: Encoder, text: str) -> str:
    """As much of a text, said over and over, as fills the tower: a longer one might be cut before its end."""
    long = " ".join([text] * LONG)
    (full,) = encoder.token_counts([long])
    return long[: bisect_left(range(len(long)), full, key=lambda size: int(encoder.token_counts([long[:size]])[0]))]


def _alternate(calls: Sequence[Call], request: Data, channel: Channel) -> list[list[float]]:
    """Rounds of milliseconds, one a side: each the median of calls made in turn; who is first changes."""
    first = [_milliseconds(call) for _ in range(request["warm_up"]) for call in calls]
    repeats = max(request["repeats"], _enough(first, request["milliseconds"]))
    rounds = []
    for at in range(request["pairs"]):
        taken: list[list[float]] = [[] for _ in calls]
        for turn in range(repeats):
            forwards = (at + turn) % 2 == 0
            for side in range(len(calls)) if forwards else range(len(calls) - 1, -1, -1):
                taken[side].append(_milliseconds(calls[side]))
        rounds.append([median(each) for each in taken])
        channel.done(1)
    return rounds


def _enough(taken: Sequence[float], wanted: float) -> int:
    """Calls that take `wanted` milliseconds, at the median of calls that were timed before."""
    return min(MOST, math.ceil(wanted / max(median(taken), 1e-3))) if taken else 1


def _milliseconds(call: Call) -> float:
    tower, feed = call
    started = time.perf_counter()
    tower.encode(feed)
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    sys.exit(child.serve(work))
