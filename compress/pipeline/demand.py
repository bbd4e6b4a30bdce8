"""What a policy will ask for before anything is measured: tasks, how many items, and how many would decide a gate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from compress.core import names
from compress.core.errors import UsageError
from compress.data.items import Request
from compress.data.rendered import Rendered
from compress.evals import task as tasks
from compress.evals.task import Task
from compress.gates.gate import GateSpec
from compress.gates.policy import FAMILIES, Policy, PolicyTask
from compress.gates.rules import non_inferior, worst_slice
from compress.gates.sample_size import pairs_needed

DISCORDANCES: Final = (0.05, 0.10)
"""Shares of items on which reference and candidate differ, from careful to careless compression."""


SAMPLE: Final = 480
"""Scenes that are rendered to see how large the slices will be."""


@dataclass(frozen=True, slots=True)
class TaskDemand:
    """A task: how many items it will measure and, by dimension, about how many in the smallest slice.

    Slices of rendered scenes are counted in the first ones; None and no slices where only the data can tell.
    """

    name: str
    split: str
    items: int | None
    slices: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GateDemand:
    """A gate; for one that bounds a drop, the items it will have and those it needs, by share of differing items.

    With that many, a candidate as good as the reference passes with a probability of 80 %.
    """

    metric: str
    rule: str
    margin: float | None = None
    per_slice: bool = False
    declared: int | None = None
    needed: Mapping[str, int | None] | None = None


def tasks_of(policy: Policy, seed: int) -> tuple[TaskDemand, ...]:
    """The policy's tasks. Raises UsageError for one that does not exist."""
    return tuple(_task(name, asked, seed) for name, asked in policy.tasks.items())


def _task(name: str, asked: PolicyTask, seed: int) -> TaskDemand:
    task = tasks.find(asked.task or name)
    total = asked.items or (None if asked.items_per_slice else task.spec.items)
    if not isinstance(task.spec.data, Rendered):
        return TaskDemand(name, asked.split, total, {})
    some = (
        Request(asked.split, None, 1, seed)
        if asked.items_per_slice
        else Request(asked.split, _sample(total), seed=seed)
    )
    made = task.load(some)
    length = len(made.ids)
    smallest = {dimension: min(Counter(labels).values()) for dimension, labels in made.slices.items()}
    if asked.items_per_slice:
        rounds = max(math.ceil(asked.items_per_slice / least) for least in (length, *smallest.values()))
        total = length * max(rounds, math.ceil((total or 0) / length))
    items = total or 0
    return TaskDemand(name, asked.split, items, {each: least * items // length for each, least in smallest.items()})


def _sample(total: int | None) -> int:
    return min(total or SAMPLE, SAMPLE)


def gates_of(policy: Policy, demanded: tuple[TaskDemand, ...]) -> tuple[GateDemand, ...]:
    """The policy's gates."""
    by_name = {each.name: each for each in demanded}
    return tuple(_gate(gate, by_name.get(gate.metric.split(".")[0])) for gate in policy.gates)


def _gate(gate: GateSpec, task: TaskDemand | None) -> GateDemand:
    if not isinstance(gate, non_inferior.Spec | worst_slice.Spec):
        return GateDemand(gate.metric, gate.rule)
    per_slice = isinstance(gate, worst_slice.Spec)
    needed = {f"{share:g}": pairs_needed(gate.margin, gate.confidence, share) for share in DISCORDANCES}
    declared = None if task is None else _smallest(gate, task) if per_slice else task.items
    return GateDemand(gate.metric, gate.rule, gate.margin, per_slice, declared, needed)


def _smallest(gate: GateSpec, task: TaskDemand) -> int | None:
    """Items of the smallest slice that a gate judges."""
    wanted = getattr(gate, "dimensions", None) or task.slices
    return min((count for dimension, count in task.slices.items() if dimension in wanted), default=None)


def unmeasurable(policy: Policy) -> Iterator[UsageError]:
    """Gates on metrics that their task does not have: they could only end inconclusive."""
    for gate in policy.gates:
        family, metric = gate.metric.split(".", 1)
        if family in FAMILIES:
            continue
        task: Task = tasks.find(policy.tasks[family].task or family)
        if metric not in task.spec.metrics:
            hint = names.did_you_mean(metric, task.spec.metrics)
            yield UsageError(f"the task {task.spec.name} has no metric {metric!r}", f"policy {policy.name}", hint)
