"""Trials of settings of several prune methods: on copies of towers, what is left of a budget's unit, and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import numpy as np
from pydantic import Field, model_validator

from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.models import cost
from compress.models.tower import Encoder, copied
from compress.recipe.fields import Strict
from compress.steps._kept import half
from compress.steps._outputs import Rows, outputs
from compress.steps._walk import Tokens
from compress.steps.prune import _levers
from compress.steps.prune._levers import Layers, Setting
from compress.steps.step import Context

Share = Annotated[float, Field(gt=0, lt=1)]

COUNTS: Final = {"parameters": cost.parameters, "flops": cost.work, "neurons": cost.neurons}
"""What is counted in a tower, where nothing is timed."""


class Budget(Strict):
    """What may be left of one of these, as a share."""

    parameters: Share | None = Field(None, description="weights of the towers")
    flops: Share | None = Field(None, description="multiplications per token in the products of the blocks")
    neurons: Share | None = Field(None, description="neurons of the MLPs")
    latency: Share | None = Field(
        None, description="time of one item on the target, measured in turn with the reference"
    )

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if len(self.told) != 1:
            raise ValueError("say one of parameters, flops, neurons and latency")
        return self

    @property
    def told(self) -> dict[str, float]:
        """The one that is set."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


@dataclass(frozen=True, slots=True)
class Search:
    """What trials share. `costs` are what the towers cost before; `expected` their outputs, where cosines judge."""

    encoder: Encoder
    budget: Budget
    free: Layers
    context: Context
    costs: Mapping[str, float]
    expected: Mapping[str, Rows]
    tokens: Tokens

    @classmethod
    def of(cls, encoder: Encoder, budget: Budget, free: Layers, context: Context, tokens: Tokens) -> Search:
        """Before the first trial. Raises UsageError for a budget that nobody can measure here."""
        if budget.latency is not None and context.latency is None:
            raise UsageError("nobody measures latency here", "budget.latency", "use parameters, flops or neurons")
        costs = {kind: before for kind, (before, _) in _costs(encoder, budget, free, context).items()}
        judges = replace(half(context, 1), progress=Silent())
        expected = {} if context.loss else {kind: outputs(encoder.towers[kind], judges) for kind in free}
        return cls(encoder, budget, free, context, costs, expected, tokens)

    @property
    def named(self) -> str:
        """What the loss is."""
        return "1 - cosine on held-out samples" if self.expected else "gate loss on the development split"

    def trial(self, settings: Sequence[Setting]) -> tuple[dict[str, float], float]:
        """Settings on a copy: the share of each tower's cost that stays, and the loss."""
        made = copied(self.encoder, {each.tower for each in settings})
        quiet = replace(self.context, progress=Silent())
        _levers.turn(made, settings, self.free, half(quiet, 0) if self.expected else quiet, self.tokens)
        shares = {kind: after / before for kind, (before, after) in self._after(made, quiet).items()}
        return shares, self._loss(made, {each.tower for each in settings}, quiet)

    def _after(self, made: Encoder, quiet: Context) -> dict[str, tuple[float, float]]:
        found = _costs(made, self.budget, self.free, quiet)
        if self.budget.latency is not None:
            return found
        return {kind: (self.costs[kind], after) for kind, (_, after) in found.items()}

    def _loss(self, made: Encoder, changed: set[str], quiet: Context) -> float:
        if self.context.loss is not None:
            return self.context.loss(made)
        found = [_turned(self.expected[kind], outputs(made.towers[kind], half(quiet, 1))) for kind in changed]
        return sum(found) / len(self.free)  # a tower that nothing was done to says what it said


def _costs(encoder: Encoder, budget: Budget, kinds: Layers, context: Context) -> dict[str, tuple[float, float]]:
    """What each tower costs: the reference's and its own, which are the same where nothing has to be measured."""
    if budget.latency is not None:
        assert context.latency is not None
        measured = context.latency(encoder)
        return {kind: measured[kind] for kind in kinds}
    count = COUNTS[next(iter(budget.told))]
    return {kind: (float(count(encoder.towers[kind])),) * 2 for kind in kinds}


def _turned(before: Rows, after: Rows) -> float:
    """Mean of 1 - cosine of rows; NaN where one has no direction, which nobody takes for good."""
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.mean(1 - (before * after).sum(1) / lengths))
