"""`prune.auto`: one budget split over neurons, heads, dims and blocks of all towers, by what each of them loses.

Every method is tried at every level on every tower or layer alone; the losses are put together, and the best splits are
made and measured. The loss is that of the policy's gates on the development split, the budget one of parameters, of
multiplications, of neurons, or of milliseconds of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from compress.core.errors import UsageError
from compress.models.tower import Encoder
from compress.recipe.fields import PositiveInt
from compress.recipe.steps import StepSpec
from compress.steps._kept import kept, thinned
from compress.steps._walk import Tokens
from compress.steps.prune import _allocation, _levers
from compress.steps.prune._allocation import Choice, Option
from compress.steps.prune._layers import layers, summary
from compress.steps.prune._levers import METHODS, Method, Setting
from compress.steps.prune._trials import Budget, Search, Share
from compress.steps.step import Context, StepReport

USE = "prune.auto"
ROLES = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2")
EXAMPLE = {"budget": {"parameters": 0.8}, "methods": ["mlp", "qk"], "levels": [0.5]}

MADE: Final = 3
"""Splits that are made and measured; the best of them stays."""

MISSED: Final = 8
"""Splits that may miss the budget by more than was predicted before the search gives up."""


class Spec(StepSpec):
    """Options of `prune.auto`."""

    budget: Budget = Field(description="what may be left: {parameters: 0.7}, flops, neurons or latency")
    scope: Literal["all", "each"] = Field("all", description="the budget holds for all towers together, or for each")
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = Field(
        METHODS, description="what may go"
    )
    levels: Annotated[tuple[Share, ...], Field(strict=False, min_length=1)] = Field(
        (0.25, 0.5), description="shares that are tried of each"
    )

    unit: Literal["tower", "layer"] = Field("tower", description="a level holds for all layers of a tower, or for one")
    loss: Literal["gates", "cosine"] = Field(
        "gates",
        description="what is searched by: the policy's gates on development data, or cosines on calibration data",
    )

    tried_on: PositiveInt = Field(
        1024,
        description="calibration samples that splits are tried on, about; the chosen one is fitted to all there are",
    )
    tokens: Tokens = Field("by_gradient", description="how tokens count: by the embedding's squared gradient, or alike")

    @field_validator("methods", "levels")
    @classmethod
    def _distinct(cls, entries: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(entries)) < len(entries):
            raise ValueError("names something twice")
        return entries


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Search for a split of the budget, and prune by it."""
    judged = context if spec.loss == "gates" else replace(context, loss=None)
    free = {
        tower.kind: frozenset(
            site.layer for layer in found for sites in layer.values() for site in sites if site.layer is not None
        )
        for tower, found in layers(encoder, spec, ROLES)
    }
    with kept(encoder, tuple(free), judged) as prepared:
        search = Search.of(encoder, spec.budget, free, thinned(prepared, free, spec.tried_on), spec.tokens)
        tried, refused = _alone(search, spec)
        made = _together(search, spec, tried)
        best = min(made, key=lambda each: (each.loss, -each.share))
        rows = _levers.turn(encoder, best.settings, free, prepared, spec.tokens)
    ((unit, budget),) = spec.budget.told.items()
    told = ", ".join(f"{each.tower} {each.words}" for each in best.settings)
    line = f"{unit} {best.share:.3f} of {budget:g} allowed: {told}; {search.named} {best.loss:.4g}; {summary(rows)}"
    return StepReport(USE, line, tuple(rows), _table(unit, search.named, tried, made, best) + refused)


@dataclass(frozen=True, slots=True)
class _Made:
    """A split that was made: its settings, the measured share of the budget's unit, and its loss."""

    settings: tuple[Setting, ...]
    share: float
    loss: float
    enough: bool


def _alone(search: Search, spec: Spec) -> tuple[list[Option], tuple[tuple[str, ...], ...]]:
    """Every setting alone; and as lines what a tower does not allow.

    Raises UsageError where nothing is allowed: what the first method said that did not find its level too low.
    """
    wanted = _levers.settings(search.encoder, spec.methods, spec.levels, search.free, spec.unit == "layer")
    found: list[Option] = []
    refused: dict[Setting, UsageError] = {}
    for setting in search.context.progress.track(wanted, "try methods", len(wanted)):
        try:
            shares, loss = search.trial([setting])
        except UsageError as error:
            refused[setting] = error
            continue
        found.append(Option(setting, shares[setting.tower], loss if np.isfinite(loss) else np.inf))
    if not found:
        reasons = (error for error in refused.values() if not _levers.nothing_goes(error))
        nothing = UsageError("no method takes anything away at these levels", "levels", "use higher ones")
        raise next(reasons, nothing)
    lines = ((setting.tower, setting.words, "", error.what, "") for setting, error in refused.items())
    return found, tuple(lines)


def _together(search: Search, spec: Spec, tried: Sequence[Option]) -> list[_Made]:
    """The best splits, made and measured. Raises UsageError where none keeps the budget."""
    ((unit, budget),) = spec.budget.told.items()
    each = spec.scope == "each"
    usable = _allocation.monotone(option for option in tried if np.isfinite(option.loss))
    choices = _allocation.ranked(usable, search.costs, budget, each)
    made: list[_Made] = []
    for choice in search.context.progress.track(choices[: MADE + MISSED], "try splits"):
        found = _measured(search, choice, budget, each)
        made.append(found)
        if sum(one.enough for one in made) == MADE or len(made) == MADE + MISSED:
            break
    kept_ = [one for one in made if one.enough and np.isfinite(one.loss)]
    if not kept_:
        least = min((one.share for one in made), default=min((option.share for option in tried), default=1.0))
        what = f"no split of these levels leaves {budget:g} of {unit}: {least:.3f} is the least that was reached"
        raise UsageError(what, f"budget.{unit}", "allow more, or add higher `levels`")
    return kept_


def _measured(search: Search, choice: Choice, budget: float, each: bool) -> _Made:
    settings = tuple(option.setting for option in choice.options)
    shares, loss = search.trial(settings)
    share = sum(search.costs[kind] * shares[kind] for kind in shares) / sum(search.costs[kind] for kind in shares)
    held = max(shares.values()) if each else share
    return _Made(settings, held, loss, held <= budget)


def _table(
    unit: str, named: str, tried: Sequence[Option], made: Sequence[_Made], best: _Made
) -> tuple[tuple[str, ...], ...]:
    """What was tried alone and together, and what was chosen."""
    chosen = set(best.settings)
    rows = [("tower", "what goes", f"{unit} left", named, "chosen")]
    for each in tried:
        mark = "yes" if each.setting in chosen else ""
        rows.append((each.tower, each.setting.words, f"{each.share:.3f}", f"{each.loss:.4g}", mark))
    for split in made:
        words = ", ".join(f"{each.tower} {each.words}" for each in split.settings)
        rows.append(("together", words, f"{split.share:.3f}", f"{split.loss:.4g}", "yes" if split is best else ""))
    return tuple(rows)
