"""Everything a policy declares, measured on the bytes of a reference and of a candidate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from compress.core.errors import EnvironmentFailure, IntegrityError, ResourceExhausted, UsageError
from compress.data.album import Album
from compress.data.fingerprint import Fingerprints, matches, of_images
from compress.data.items import Request
from compress.evals import task as tasks
from compress.evals.encode import Encoding, How, Job
from compress.evals.task import Embeddings, Measured, TaskData
from compress.gates.outcomes import Measurement, Measurements, Unmeasured

T = TypeVar("T")
_NOT_OURS: Final = (EnvironmentFailure, IntegrityError, ResourceExhausted, UsageError)
"""Errors that tell what the user or the machine has to change: the whole run ends with them."""

_LOST: Final = Unmeasured("was not encoded")


class Asked(Protocol):
    """What a policy asks of a task; `task` names it where the policy calls it differently."""

    @property
    def split(self) -> str: ...
    @property
    def items(self) -> int | None: ...
    @property
    def items_per_slice(self) -> int | None: ...
    @property
    def task(self) -> str | None: ...


class Gate(Protocol):
    """What matters here about a gate."""

    @property
    def metric(self) -> str: ...


class Declared(Protocol):
    """What matters here about a policy."""

    @property
    def tasks(self) -> Mapping[str, Asked]: ...
    @property
    def gates(self) -> Sequence[Gate]: ...


@dataclass(frozen=True, slots=True)
class Options:
    """Where data are looked for, further folders of task files, the seed of choices, and how to encode.

    `how.cache` keeps the reference's embeddings only; a candidate is always encoded anew. `seen` are the images that
    the candidate was made with, or why nobody knows: a task that holds one of them is not measured.
    """

    roots: tuple[Path, ...] = (Path(),)
    task_folders: tuple[Path, ...] = ()
    seed: int = 0
    how: How = field(default_factory=How)
    seen: Album | Fingerprints | Unmeasured = field(default_factory=lambda: of_images((), ()))


def measure(policy: Declared, reference: Path, candidate: Path, options: Options) -> Measurements:
    """Every metric of every declared task by its full name; one that could not be measured says why.

    Raises UsageError for a task that does not exist, EnvironmentFailure (data, provider), IntegrityError and
    ResourceExhausted. Any other failure makes metrics Unmeasured, which blocks as well.
    """
    found = {name: tasks.find(asked.task or name, options.task_folders) for name, asked in policy.tasks.items()}
    loaded = {name: _guarded(_loader(task, policy.tasks[name], options)) for name, task in found.items()}
    jobs = {name: job for name, job in loaded.items() if isinstance(job, Job)}
    old, new = _encoded(reference, candidate, jobs, options.how)
    made: dict[str, Measurement] = {}
    for name, task in found.items():
        values = _values(loaded[name], old.get(name, _LOST), new.get(name, _LOST))
        wanted = {*task.spec.metrics, *_gated(policy, name)}
        made |= {f"{name}.{metric}": value for metric, value in _complete(values, wanted).items()}
    return made


def _encoded(
    reference: Path, candidate: Path, jobs: Mapping[str, Job], how: How
) -> tuple[Mapping[str, Embeddings | Unmeasured], Mapping[str, Embeddings | Unmeasured]]:
    """What both make of every job: side by side on half the cores each, or the candidate alone on all of them."""
    with ExitStack() as stack:
        pair = (Encoding(reference, jobs, how), Encoding(candidate, jobs, replace(how, cache=None)))
        for encoding in pair:
            stack.enter_context(encoding)
        idle = [_guarded(encoding.look) for encoding in pair]
        threads = max(1, len(os.sched_getaffinity(0)) // 2) if idle == [False, False] else 0
        begun = [
            state if isinstance(state, Unmeasured) else _guarded(partial(encoding.start, threads))
            for encoding, state in zip(pair, idle, strict=True)
        ]
        found = [
            state if isinstance(state, Unmeasured) else _guarded(encoding.result)
            for encoding, state in zip(pair, begun, strict=True)
        ]
        return _all(found[0], jobs), _all(found[1], jobs)


def _loader(task: tasks.Task, asked: Asked, options: Options) -> Callable[[], Job | Unmeasured]:
    request = Request(
        asked.split, asked.items, asked.items_per_slice, options.seed, options.roots, options.how.progress
    )

    def load() -> Job | Unmeasured:
        data = task.load(request)
        if reason := _short(data, asked, task) or _known(data, options.seen):
            return Unmeasured(reason)
        return Job(task, request, replace(data, images=()))  # the child has its own; these may be a gigabyte

    return load


def _short(data: TaskData, asked: Asked, task: tasks.Task) -> str:
    """Why there are fewer items than were asked for, or an empty string. A score does not tell it itself."""
    wanted = max(asked.items or 0, asked.items_per_slice or 0) or task.spec.items or 0
    return f"there are {data.count} items, and {wanted} were asked for" if data.count < wanted else ""


def _known(data: TaskData, seen: Album | Fingerprints | Unmeasured) -> str:
    """Why the items cannot be held against a model that was made with what was seen, or an empty string."""
    if isinstance(seen, Unmeasured):
        return seen.reason
    same: dict[str, str] = {}
    own: Fingerprints | None = None
    for part in seen.chunks():
        if part.ids:
            own = own or of_images(data.ids, data.images)
            same = {each.right: each.left for each in matches(part, own)} | same
    if not same:
        return ""
    right = next(each for each in data.ids if each in same)
    return f"{len(same)} of {len(data.ids)} items were seen by a step: {right} is {same[right]}"


def _guarded(work: Callable[[], T | Unmeasured]) -> T | Unmeasured:
    """The result, or why there is none; errors that somebody else has to act on pass through."""
    try:
        return work()
    except _NOT_OURS:
        raise
    except Exception as error:  # one broken task must not hide the others, and must never count as passed
        return Unmeasured(f"{type(error).__name__}: {error}")


def _all(
    encoded: dict[str, Embeddings | Unmeasured] | Unmeasured, jobs: Mapping[str, Job]
) -> Mapping[str, Embeddings | Unmeasured]:
    return dict.fromkeys(jobs, encoded) if isinstance(encoded, Unmeasured) else encoded


def _gated(policy: Declared, task: str) -> list[str]:
    """Metrics that gates ask of a task."""
    split = (gate.metric.split(".", 1) for gate in policy.gates)
    return [metric for family, metric in split if family == task]


def _values(job: Job | Unmeasured, old: Embeddings | Unmeasured, new: Embeddings | Unmeasured) -> Measured | Unmeasured:
    """The metrics of one task, or the first reason why there are none."""
    if isinstance(job, Unmeasured):
        return job
    if isinstance(old, Unmeasured):
        return old
    if isinstance(new, Unmeasured):
        return new
    return _guarded(lambda: job.task.measure(job.data, old, new))


def _complete(values: Measured | Unmeasured, wanted: set[str]) -> dict[str, Measurement]:
    """The metrics with every wanted one among them, if only with a reason."""
    if isinstance(values, Unmeasured):
        return dict.fromkeys(sorted(wanted), values)
    absent = Unmeasured("the task gives no such metric")
    return {**dict.fromkeys(sorted(wanted - values.keys()), absent), **values}
