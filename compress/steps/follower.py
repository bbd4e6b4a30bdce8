"""The child that follows the stream: one block as it is and as it was, on every calibration batch.

`now.onnx` computes what a product reads and the stream beside it in the tower as it stands, `was.onnx` what came out of
the junction before any change. What both start from lies in files that the run before has written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Channel, Data
from compress.steps._moments import JointMoments, Moments
from compress.targets.graph.session import open_session, run

Arrays = dict[str, NDArray[Any]]

_NOTHING: Final = 1e-9
"""Share of the mean weight up to which a token reaches nothing."""

_MANY: Final = 2048
"""Rows that are summed at once."""

_SOME: Final = 4
"""Tokens that are tried first: where all of them are heard, all tokens are pooled, and none goes with others."""


def work(request: Data, channel: Channel) -> Data:
    """Sum up moments of two halves of the samples, of tokens that are heard and of others, into files of `folder`."""
    folder, residual = Path(request["folder"]), request["residual"]
    now = open_session(folder / "now.onnx")
    was = open_session(folder / "was.onnx") if residual else None
    rest = open_session(folder / "rest.onnx") if "output" in request else None
    where = f"{request['tower']} tower, {request['inner']}"
    halves = [_Half(JointMoments() if residual else Moments(), where) for _ in request["halves"]]
    likely: list[int] = []
    channel.expect(len(request["feeds"]))
    for at, path in enumerate(request["feeds"]):
        with np.load(path, allow_pickle=False) as batch:
            feed: Arrays = {name: batch[name] for name in request["inputs"]}
        mask = feed.get(request["mask"] or "")
        before = request["before"]
        wanted = [request["inner"], *([residual] if residual else [])]
        kept = _run(now, wanted, feed, folder / f"now{at}.npy", before["residual"])
        rows: list[NDArray[np.float32]] = [kept[request["inner"]]]
        if was is not None:
            joined = _run(was, [request["joined"]], feed, folder / f"was{at}.npy", before["joined"])[request["joined"]]
            rows.append(joined - kept[residual])
            np.save(folder / f"now{at}.npy", kept[residual])
            np.save(folder / f"was{at}.npy", joined)
        counted = _real(rows[0], mask)
        weights = _weights(request, at, rows[0])
        heard = counted
        if weights is not None:
            heard = counted & (weights > _NOTHING)
        elif rest is not None:
            reaching = _heard(rest, request, feed, joined, likely)
            heard, likely = counted & reaching, np.flatnonzero(reaching.any(0)).tolist()
        for half, which, counts in zip(halves, (0, 1, 0, 1), (heard, heard, *[counted & ~heard] * 2), strict=True):
            chosen = counts[which::2]
            if chosen.any():
                own = weights[which::2][chosen] if weights is not None and counts is heard else None
                half.add([each[which::2][chosen] for each in rows], own)
        channel.done(1)
    for name, half in zip(request["halves"], halves, strict=True):
        (folder / name).mkdir(exist_ok=True)
        for key, array in half.summed().state().items():  # no archive: its checksums take longer than the sums
            np.save(folder / name / f"{key}.npy", array)
    return {}


@dataclass
class _Half:
    """Moments of half of the samples, and rows that wait: sums of a few rows cost as much as those of many."""

    moments: Any
    where: str
    _waiting: list[tuple[list[NDArray[np.float32]], NDArray[np.float32] | None]] = field(default_factory=list)

    def add(self, rows: list[NDArray[np.float32]], weights: NDArray[np.float32] | None) -> None:
        """Take in arrays of rows, which count `weights` times, or once."""
        self._waiting.append((rows, weights))
        if sum(len(each[0]) for each, _ in self._waiting) >= _MANY:
            self.summed()

    def summed(self) -> Any:
        """The moments of all rows so far. Raises UsageError on NaN or infinity."""
        if self._waiting:
            rows = [np.concatenate(each) for each in zip(*(each for each, _ in self._waiting), strict=True)]
            weighed = any(weights is not None for _, weights in self._waiting)
            counts = [np.ones(len(each[0]), np.float32) if own is None else own for each, own in self._waiting]
            self._waiting.clear()
            try:
                self.moments.add(*rows, weights=np.concatenate(counts) if weighed else None)
            except ValueError as error:
                raise UsageError(f"{error}: the float model itself is broken", self.where) from error
        return self.moments


def _run(session: Any, wanted: list[str], feed: Arrays, stored: Path, name: str | None) -> Arrays:
    """The wanted values, from the batch and what the run before has stored under a name, which is not computed."""
    held: Arrays = dict(feed)
    if name is not None:
        held[name] = np.load(stored, allow_pickle=False)
    computed = [name for name in wanted if name not in held]
    named = {value.name: held[value.name] for value in session.get_inputs()}
    found = dict(zip(computed, run(session, computed, named) if computed else (), strict=True))
    return {name: np.asarray(found.get(name, held.get(name)), np.float32) for name in wanted}


def _real(values: NDArray[np.float32], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Which rows of values (..., d) are those of a sample's own tokens, and no padding."""
    if mask is not None and values.shape[:-1] == mask.shape:
        return np.asarray(mask != 0)
    return np.ones(values.shape[:-1], np.bool_)


def _weights(request: Data, at: int, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """How much each row of values (..., d) counts; None where nobody has weighed them."""
    if not request["sensed"]:
        return None
    with np.load(request["sensed"][at], allow_pickle=False) as found:
        weights: NDArray[np.float32] = found[request["joined"]]
    return weights if weights.shape == values.shape[:-1] else None


def _heard(
    rest: Any, request: Data, feed: Arrays, joined: NDArray[np.float32], likely: Sequence[int]
) -> NDArray[np.bool_]:
    """Which rows of the stream (batch, tokens, d) reach the embedding: those whose change changes it.

    Tokens are changed together, and one by one only where something is heard: mostly it is one among hundreds, and the
    same in every batch, so those that were heard in the one before are `likely`, at first those of the first sample.
    """
    if joined.ndim != 3:
        return np.ones(joined.shape[:-1], np.bool_)
    heard = np.zeros(joined.shape[:-1], np.bool_)
    shift = np.random.default_rng(0).standard_normal(joined.shape[1:], np.float32) * joined.std()

    def embedded(stream: NDArray[np.float32]) -> NDArray[np.float32]:
        held = feed | {request["joined"]: stream}
        named = {value.name: held[value.name] for value in rest.get_inputs()}
        return np.asarray(run(rest, [request["output"]], named)[0], np.float32)

    before = embedded(joined)

    def reaches(tokens: Sequence[int]) -> NDArray[np.bool_]:
        changed = joined.copy()
        changed[:, tokens] += shift[tokens]
        return np.asarray(np.abs(embedded(changed) - before).max(-1) > 1e-5 * np.abs(before).max())

    every = list(range(joined.shape[1]))
    some = every[:: max(1, len(every) // _SOME)]
    alone = set(likely)
    if not alone and all(reaches([token]).all() for token in some):
        alone = set(every)
    elif not alone and len(joined) > 1:
        first = _heard(rest, request, {name: each[:1] for name, each in feed.items()}, joined[:1], ())
        alone = set(np.flatnonzero(first[0]).tolist())
    others = [token for token in every if token not in alone]
    parts = [[token] for token in every if token in alone] + ([others] if others else [])
    while parts:
        part = parts.pop()
        found = reaches(part)
        if len(part) == 1:
            heard[:, part[0]] = found
        elif found.any():
            parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return heard


if __name__ == "__main__":
    sys.exit(child.serve(work))
