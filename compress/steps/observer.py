"""The child that watches: it runs the float graph of one tower on calibration batches and shows observers its values.

A graph that came from elsewhere is run here and nowhere else, so that it cannot take its parent down.
"""

from __future__ import annotations

import importlib
import sys
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
    """Run `graph` on every batch of `feeds`; the state of the observer of value k is stored as `<k>.npz` in `out`."""
    module, name = request["observer"].split(":")
    made: type[Observer] = getattr(importlib.import_module(module), name)
    values, inputs = request["values"], request["inputs"]
    observers = {value: made() for value in values}
    session = open_session(Path(request["graph"]))
    computed = [value for value in values if value not in inputs]
    channel.expect(len(request["feeds"]))
    for path in request["feeds"]:
        with np.load(path, allow_pickle=False) as batch:
            feed = {name: batch[name] for name in inputs}
        arrays = dict(zip(computed, run(session, computed, feed) if computed else (), strict=True))
        for value in values:
            _show(observers[value], arrays.get(value, feed.get(value)), f"{request['tower']} tower, {value}")
        channel.done(1)
    for at, value in enumerate(values):
        np.savez(Path(request["out"]) / f"{at}.npz", **observers[value].state())  # type: ignore[arg-type]
    return {}


def _show(observer: Observer, array: NDArray[np.generic] | None, where: str) -> None:
    try:
        observer.add(np.asarray(array, np.float32))
    except ValueError as error:
        raise UsageError(f"{error}: the float model itself is broken", where) from error


if __name__ == "__main__":
    sys.exit(child.serve(work))
