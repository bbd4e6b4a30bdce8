"""Paired latency: reference and candidate in turn in one process, so that a busy machine slows both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from compress.core.progress import Progress, Silent
from compress.core.score import Score
from compress.data import child
from compress.data.child import Data, Limits
from compress.data.session import bounded

WORKER = "compress.bench.worker"
_ASKED: Final = ("batches", "pairs", "repeats", "milliseconds", "warm_up", "threads", "long", "towers")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is timed: batch sizes, pairs per tower and batch, calls per pair (their median counts), warm-up calls.

    A pair takes `repeats` calls of each side, and more where they would take less than `milliseconds`: a call that is
    no longer than what the system does in between says little.

    `threads` is the same for both sides; 0 means as many as there are cores. Texts are captions, or, where they are
    to be `long`, as many tokens as a tower takes. `towers` names those that are timed.
    """

    batches: tuple[int, ...] = (1, 8)
    pairs: int = 21
    repeats: int = 3
    milliseconds: float = 20.0
    warm_up: int = 3
    threads: int = 0
    long: bool = False
    towers: tuple[str, ...] = ("vision", "text")
    limits: Limits = field(default_factory=Limits.of_machine)
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class Row:
    """One tower at one batch size: milliseconds per call of each pair."""

    tower: str
    batch: int
    reference: tuple[float, ...]
    candidate: tuple[float, ...]

    @property
    def ratio(self) -> Score:
        """Candidate over reference, by pair: the median between the lowest and the highest.

        The range of n values holds the true median with probability 1 - 2 ** (1 - n), whatever their distribution.
        """
        return spread([new / old for old, new in zip(self.reference, self.candidate, strict=True)])

    def data(self) -> Data:
        """As JSON-like data, with items per second at the median."""
        old, new = median(self.reference), median(self.candidate)
        return {
            "tower": self.tower,
            "batch": self.batch,
            "reference_ms": _ends(self.reference),
            "candidate_ms": _ends(self.candidate),
            "ratio": _ends([b / a for a, b in zip(self.reference, self.candidate, strict=True)]),
            "pairs": len(self.reference),
            "reference_per_second": 1e3 * self.batch / old,
            "candidate_per_second": 1e3 * self.batch / new,
        }


@dataclass(frozen=True, slots=True)
class Times:
    """One tower at one batch size, timed alone: milliseconds per call of each round."""

    tower: str
    batch: int
    milliseconds: tuple[float, ...]

    def data(self) -> Data:
        """As JSON-like data, with items per second at the median."""
        rate = 1e3 * self.batch / median(self.milliseconds)
        return {"tower": self.tower, "batch": self.batch, "ms": _ends(self.milliseconds), "per_second": rate}


@dataclass(frozen=True, slots=True)
class Latency:
    """All rows, and the bytes by which the peak resident memory grew when a folder was opened and run on its own."""

    rows: tuple[Row, ...]
    reference_memory: int
    candidate_memory: int

    def scores(self) -> dict[str, Score]:
        """Metrics for gates: the worst ratio of each tower and of both, and the ratio of memory."""
        slowest = {
            f"latency.{tower}_ratio": self._worst(tower) for tower in dict.fromkeys(row.tower for row in self.rows)
        }
        return {
            "latency.ratio": max(slowest.values(), key=lambda score: score.value),
            **slowest,
            "memory.ratio": self._memory_ratio(),
            "memory.peak": Score.exact(float(self.candidate_memory)),
        }

    def _memory_ratio(self) -> Score:
        if not self.reference_memory:  # too small a model to be seen beside the runtime
            return Score(math.nan, None, None, 1)
        return Score.exact(self.candidate_memory / self.reference_memory)

    def _worst(self, tower: str) -> Score:
        return max((row.ratio for row in self.rows if row.tower == tower), key=lambda score: score.value)

    def data(self) -> Data:
        """As JSON-like data."""
        return {
            "rows": [row.data() for row in self.rows],
            "reference_memory": self.reference_memory,
            "candidate_memory": self.candidate_memory,
        }


def measure(reference: Path, candidate: Path, plan: Plan) -> Latency:
    """Time the towers of two folders. Raises EnvironmentFailure where a provider asked for does not run."""
    folders = reference, candidate
    told = in_turn(folders, plan)
    return Latency(tuple(map(_row, told)), *(_memory(folder, plan) for folder in folders))


def measure_alone(folder: Path, plan: Plan) -> tuple[tuple[Times, ...], int]:
    """The times of one folder's towers, and the bytes by which the peak memory grew when it was opened and run."""
    told = in_turn((folder,), plan)
    times = (Times(row["tower"], row["batch"], tuple(each for (each,) in row["times"])) for row in told)
    return tuple(times), _memory(folder, plan)


def in_turn(folders: Sequence[Path], plan: Plan) -> list[Data]:
    """Rows of `tower`, `batch` and `times`: for each round the milliseconds of every folder."""
    what = "timing " + " against ".join(folder.name for folder in reversed(folders))
    request = {**_asked(plan), "folders": [str(folder.resolve()) for folder in folders]}
    rows: list[Data] = child.run(WORKER, request, bounded(plan.limits, *folders), plan.progress, what)["rows"]
    return rows


def _memory(folder: Path, plan: Plan) -> int:
    request = {**_asked(plan), "folder": str(folder.resolve())}
    told = child.run(WORKER, request, bounded(plan.limits, folder), plan.progress, f"memory of {folder.name}")
    return int(told["bytes"])


def _asked(plan: Plan) -> Data:
    return {name: getattr(plan, name) for name in _ASKED}


def _row(told: Any) -> Row:
    old, new = zip(*told["times"], strict=True)
    return Row(told["tower"], told["batch"], old, new)


def spread(values: Sequence[float]) -> Score:
    """The median with the lowest and the highest; no interval from one value."""
    if len(values) < 2:
        return Score(median(values), None, None, len(values))
    return Score(median(values), min(values), max(values), len(values))


def _ends(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": median(values), "max": max(values)}
