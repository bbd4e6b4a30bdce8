"""What a step that searches or watches may ask: what an encoder loses on development data, and its milliseconds.

The release split is not touched: what is chosen by a split cannot be judged on it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from compress import targets
from compress.bench import latency
from compress.core.errors import CompressError
from compress.data import runtime
from compress.data.items import Request
from compress.evals import suite
from compress.evals import task as tasks
from compress.evals.encode import How
from compress.gates import statistics
from compress.gates.gate import GateSpec
from compress.gates.outcomes import Measurements, Outcomes, paired
from compress.gates.policy import Policy, load_policy
from compress.gates.rules._paired import PairedSpec
from compress.models.tower import Encoder
from compress.pipeline.options import Options
from compress.recipe.schema import Recipe, Step
from compress.steps.step import Context

ITEMS: Final = 336
"""Items of each task that a trial is measured on: three rounds of every slice of reading."""

LEAST: Final = 20
"""Items that a slice must have for its drop to count."""

PAIRS: Final = 7
"""Rounds in which a trial and the reference are timed in turn."""

SEARCHES: Final = ("prune.auto",)

GATES: Final = "gates"
"""What a step says that searches by the gates (`loss`) or looks at them now and then (`watch`)."""


def able(context: Context, recipe: Recipe, reference: Path, options: Options) -> Context:
    """The context with what steps that search or watch need, where the recipe has one; it names its policy's file."""
    asked = [step for step in recipe.steps if step.use in SEARCHES or _by_gates(step)]
    if not asked:
        return context
    return replace(
        context,
        loss=_loss(recipe, reference, options) if any(map(_by_gates, asked)) else None,
        latency=partial(_seconds, targets.load(recipe.targets[0]), reference),
    )


def _by_gates(step: Step) -> bool:
    return GATES in (getattr(step.spec, "loss", None), getattr(step.spec, "watch", None))


@dataclass(frozen=True, slots=True)
class _Development:
    """The paired gates of a policy and their tasks, on the development split. Shaped as `suite.measure` asks."""

    tasks: Mapping[str, Any]
    gates: tuple[GateSpec, ...]


def _loss(recipe: Recipe, reference: Path, options: Options) -> Callable[[Encoder], float] | None:
    """A function of an encoder; None where no policy protects anything, or none of its tasks can be loaded."""
    asked = _asked(load_policy(recipe.policy), recipe, options) if recipe.gated else None
    if asked is None:
        options.progress.say("no gate can be measured on development data: cosines with the reference are searched by")
        return None
    wanted = suite.Options(roots=options.data_roots, seed=recipe.seed, how=How(cache=options.cache / "embeddings"))
    target = targets.load(recipe.targets[0])

    def loss(encoder: Encoder) -> float:
        with tempfile.TemporaryDirectory() as made:
            target.export(encoder, Path(made))
            return shortfall(asked.gates, suite.measure(asked, reference, Path(made), wanted))

    return loss


def _asked(policy: Policy, recipe: Recipe, options: Options) -> _Development | None:
    gates = tuple(gate for gate in policy.gates if isinstance(gate, PairedSpec))
    found = {}
    for name in dict.fromkeys(gate.metric.split(".")[0] for gate in gates):
        asked = SimpleNamespace(split="development", items=ITEMS, items_per_slice=None, task=policy.tasks[name].task)
        try:
            request = Request("development", ITEMS, None, recipe.seed, options.data_roots, options.progress)
            tasks.find(asked.task or name, ()).load(request)
        except CompressError as error:
            options.progress.say(f"{name} is left out of the search: {error.what}")
        else:
            found[name] = asked
    left = tuple(gate for gate in gates if gate.metric.split(".")[0] in found)
    return _Development(found, left) if left else None


def shortfall(gates: tuple[GateSpec, ...], measured: Measurements) -> float:
    """Mean over gates of what is lost, in margins; of a gate on slices, the worst slice. 0 is the reference.

    Infinity where a metric could not be measured: that is never a gain.
    """
    return math.fsum(_gate(gate, measured) for gate in gates) / len(gates)


def _gate(gate: Any, measured: Measurements) -> float:
    outcomes = paired(measured[gate.metric])
    if not isinstance(outcomes, Outcomes):
        return math.inf
    masks = [np.ones(len(outcomes.items), np.bool_)]
    if gate.rule == "worst_slice":
        labels = [np.asarray(each) for name, each in outcomes.slices.items() if name in (gate.dimensions or (name,))]
        masks = [each == label for each in labels for label in np.unique(each) if np.sum(each == label) >= LEAST]
    drops = [statistics.drop_value(outcomes, mask) / gate.margin for mask in masks]
    return max(drops) if drops and all(map(math.isfinite, drops)) else math.inf


def _seconds(target: Any, reference: Path, encoder: Encoder) -> dict[str, tuple[float, float]]:
    """Seconds of one item, of the reference and of the encoder as the target writes it, by tower."""
    with tempfile.TemporaryDirectory() as made:
        target.export(encoder, Path(made))
        if runtime.read(Path(made)).proof is not None:
            raise CompressError("the target does not run here: how long a simulation takes says nothing", "latency")
        plan = latency.Plan(batches=(1,), pairs=PAIRS)
        rows = latency.in_turn((reference, Path(made)), plan)
    return {row["tower"]: _pair(row["times"]) for row in rows}


def _pair(times: list[list[float]]) -> tuple[float, float]:
    """The reference's median, and that median times the median ratio of the pairs, in seconds."""
    before = median(old for old, _ in times) / 1e3
    return before, before * median(new / old for old, new in times)
