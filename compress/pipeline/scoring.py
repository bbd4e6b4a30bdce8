"""The scores of one model on tasks, compared with nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.core.errors import Inconclusive, UsageError
from compress.core.score import Score
from compress.data.items import Request
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.evals.task import Embeddings, Task
from compress.gates import statistics
from compress.gates.outcomes import Outcomes, Unmeasured, paired

CONFIDENCE = 0.95
_COMPARES = ("parity", "cross_index")
"""The kinds of task that have no result for a model alone."""

_BESIDE_ITSELF = ("drop_in_r1", "drop_in_image_r1", "ece_drift", "confidence_drift", "rank_correlation", "token_cosine")
"""Metrics of other kinds that have none: the model beside itself says nothing."""


@dataclass(frozen=True, slots=True)
class Level:
    """How high a metric is on all items, or on one slice of a dimension, with its 95 % interval."""

    metric: str
    dimension: str | None
    slice: str | None
    score: Score


def levels(folder: Path, names: Sequence[str], request: Request, how: How) -> tuple[Level, ...]:
    """Every metric of the tasks, encoded in a child process by the towers of a folder.

    Raises UsageError for a task that does not exist or compares two models, Inconclusive where one was not measured.
    """
    jobs = {name: _job(tasks.find(name), request) for name in dict.fromkeys(names)}
    made = encode(folder, jobs, how)
    return tuple(level for name, job in jobs.items() for level in _levels(name, job, made[name]))


def _job(task: Task, request: Request) -> Job:
    if task.spec.kind in _COMPARES:
        raise UsageError(f"the task {task.spec.name} compares two models", "--task", "see `compress gate --reference`")
    return Job(task, request, task.load(request))


def _levels(name: str, job: Job, made: Embeddings | Unmeasured) -> Iterator[Level]:
    if isinstance(made, Unmeasured):
        raise Inconclusive(made.reason, name)
    measured = job.task.measure(job.data, made, made)
    for metric in (*job.task.spec.metrics, *sorted(measured.keys() - job.task.spec.metrics.keys())):
        if metric in _BESIDE_ITSELF or metric not in measured:
            continue
        found = measured[metric]
        if isinstance(found, Score):
            yield Level(f"{name}.{metric}", None, None, found)
        else:
            yield from _outcomes(f"{name}.{metric}", found)


def _outcomes(metric: str, found: Outcomes) -> Iterator[Level]:
    sound = paired(found)
    if isinstance(sound, Unmeasured):
        raise Inconclusive(sound.reason, metric)
    yield Level(metric, None, None, _level(sound, np.ones(len(sound.items), np.bool_)))
    for dimension, labels in sound.slices.items():
        for label in dict.fromkeys(labels):
            yield Level(metric, dimension, label, _level(sound, np.array([each == label for each in labels])))


def _level(outcomes: Outcomes, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Score:
    return statistics.level(outcomes, outcomes.candidate, mask, CONFIDENCE)


def to_data(found: Sequence[Level]) -> list[Mapping[str, object]]:
    """JSON-like rows."""
    return [
        {
            "metric": each.metric,
            "dimension": each.dimension,
            "slice": each.slice,
            "n": each.score.n,
            "value": each.score.value,
            "low": each.score.low,
            "high": each.score.high,
        }
        for each in found
    ]
