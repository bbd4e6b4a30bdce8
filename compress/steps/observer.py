"""The child that watches: it runs the float graph of one tower on calibration batches and shows observers its values.

A graph that came from elsewhere is run here and nowhere else, so that it cannot take its parent down.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Channel, Data
from compress.targets.graph.session import open_session, run

State = dict[str, NDArray[np.float64]]
Kept = TypeVar("Kept")


class Observer(Protocol):
    """What is kept of the values that flow by: made without arguments, fed array by array, stored as arrays."""

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in one array. Raises ValueError for values that nobody can calibrate with."""
        ...

    def state(self) -> State:
        """Everything that is kept."""
        ...

    @classmethod
    def restored(cls: type[Kept], state: State) -> Kept:
        """The observer that had this state."""
        ...


def work(request: Data, channel: Channel) -> Data:
    """Run `graph` on every batch of `feeds`; the state of the observer of value k is stored as `<k>.npz` in `out`.

    The values named in `kept` are stored batch by batch in the files of `to`, those that the batch holds among them.
    """
    values, inputs, kept = request["values"], request["inputs"], request.get("kept", [])
    observers = _observers(request["observer"], values)
    session = open_session(Path(request["graph"]))
    taken = {value.name for value in session.get_inputs()}
    computed = [value for value in dict.fromkeys((*values, *kept)) if value not in inputs]
    channel.expect(len(request["feeds"]))
    for at, path in enumerate(request["feeds"]):
        with np.load(path, allow_pickle=False) as batch:
            given = {name: batch[name] for name in inputs}
        feed = {name: given[name] for name in inputs if name in taken}
        arrays = dict(zip(computed, run(session, computed, feed) if computed else (), strict=True))
        for value in values:
            array = np.asarray(arrays.get(value, given.get(value)), np.float32)
            if value in request["windows"]:
                array = patches(array, **request["windows"][value])
            _show(observers[value], array, f"{request['tower']} tower, {value}")
        if kept:
            np.savez(request["to"][at], **{name: (given | arrays)[name] for name in kept})
        channel.done(1)
    for at, value in enumerate(values):
        np.savez(Path(request["out"]) / f"{at}.npz", **observers[value].state())  # type: ignore[arg-type]
    return {}


def _observers(named: str | None, values: Sequence[str]) -> dict[str, Observer]:
    """An observer for each value; `named` is None where there is none."""
    if named is None:
        return {}
    module, name = named.split(":")
    made: type[Observer] = getattr(importlib.import_module(module), name)
    return {value: made() for value in values}


def patches(
    images: NDArray[np.float32], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> NDArray[np.float32]:
    """What a convolution multiplies its kernel with: (batch, places, channels * kh * kw) of (batch, channels, h, w)."""
    top, left, bottom, right = pads
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), (2, 3))[
        :, :, :: strides[0], :: strides[1]
    ]
    batch, channels, high, wide = windows.shape[:4]
    rows: NDArray[np.float32] = windows.transpose(0, 2, 3, 1, 4, 5)
    return rows.reshape(batch, high * wide, channels * kernel[0] * kernel[1])


def _show(observer: Observer, array: NDArray[np.float32], where: str) -> None:
    try:
        observer.add(array)
    except ValueError as error:
        raise UsageError(f"{error}: the float model itself is broken", where) from error


if __name__ == "__main__":
    sys.exit(child.serve(work))
