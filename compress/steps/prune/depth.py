"""`prune.depth`: fewer blocks; the product before a gap is fitted again to give what the blocks that went gave.

What goes is what costs the tower's output least, tried out on samples that the fit has not seen. The update of a
removed block is predicted from the hidden activations of the MLP before it, by a centered ridge regression.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from compress.core.errors import UsageError
from compress.models.branches import Unit, bypass, neighbour, units
from compress.models.junctions import in_order, junction
from compress.models.surgery import linear
from compress.models.surgery import replace as replace_weight
from compress.models.tower import Encoder, Site, Tower
from compress.recipe.steps import StepSpec
from compress.steps._kept import half, kept
from compress.steps._outputs import Rows, distance, outputs
from compress.steps._walk import Tokens, walk
from compress.steps.prune import _scores
from compress.steps.prune._fitting import Compensate, Fitted, fitted
from compress.steps.prune._layers import excluded, layers, summary
from compress.steps.step import Context, SiteReport, StepReport

USE = "prune.depth"
ROLES = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2")
EXAMPLE = {"blocks": 1, "towers": ["text"]}

TRIES: Final = 4
"""Blocks that are tried in a round: those that cost least on their own, where there are more."""


class Spec(StepSpec):
    """Options of `prune.depth`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of each tower's blocks that goes"
    )
    blocks: Annotated[int, Field(ge=1)] | None = Field(None, description="how many go from each tower, instead")
    unit: Literal["block", "branch"] = Field("block", description="what goes: blocks, or attentions and MLPs apart")
    compensate: Compensate = Field("ridge", description="what is fitted again: weights and bias, the bias, nothing")
    tokens: Tokens = Field("by_gradient", description="how tokens count: by the embedding's squared gradient, or alike")

    @model_validator(mode="after")
    def _one_of_both(self) -> Spec:
        if (self.ratio is None) == (self.blocks is None):
            raise ValueError("say how much goes: either `ratio` or `blocks`")
        return self


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Remove blocks of the selected layers."""
    rows: list[SiteReport] = []
    chosen = {
        tower.kind: {site.layer for layer in found for sites in layer.values() for site in sites}
        for tower, found in layers(encoder, spec, ROLES)
    }
    with kept(encoder, tuple(chosen), context) as prepared:
        for kind, numbers in chosen.items():
            rows += _shortened(encoder, kind, numbers, spec, prepared)
    if not rows:
        raise UsageError("no block goes: the count that stays is that of all", "ratio", "use more, or say `blocks`")
    return StepReport(USE, summary(rows), tuple(rows))


@dataclass(frozen=True, slots=True)
class _Cut:
    """A tower without some units, how far its output is from what it was, and the fit of each product that was made."""

    tower: Tower
    loss: float
    fits: tuple[tuple[Site, Fitted], ...]


@dataclass(frozen=True, slots=True)
class _Trials:
    """Cuts that can be made of a tower, each on a copy; `expected` is its output for the samples that judge."""

    tower: Tower
    banned: frozenset[str]
    compensate: Compensate
    tokens: Tokens
    context: Context
    expected: Rows

    @classmethod
    def of(cls, encoder: Encoder, kind: str, spec: Spec, context: Context) -> _Trials:
        """For one tower of an encoder."""
        tower = encoder.towers[kind]
        banned = frozenset(excluded(encoder, spec, ROLES, kind))
        return cls(tower, banned, spec.compensate, spec.tokens, context, outputs(tower, half(context, 1)))

    def cut(self, gone: Sequence[Unit], final: bool = False) -> _Cut:
        """Without some units; `final` fits to all samples, else those that judge have no part in it."""
        model = copy.deepcopy(self.tower.graph)
        made = replace(self.tower, graph=model)
        ends = {bypass(made, _now(made, unit)) for unit in gone}
        ends &= {name for node in model.graph.node for name in node.output}  # what ends before another gap has gone
        refitted = {site.name: site for end in sorted(ends) if (site := neighbour(made, end, self.banned)) is not None}
        order = in_order(made, refitted.values())
        fits = []
        for seen in walk(made, [junction(made, site) for site in order], self.context, self.tokens, self.tower.graph):
            site = made.site(seen.junction.site.name)
            weight, bias = (each.astype(np.float64) for each in linear(made, site))
            found = fitted(seen, weight, bias, np.arange(weight.shape[1]), self.compensate)
            fit = found.fit if final else found.tried
            replace_weight(made, site, fit.weight, fit.offset if self.compensate != "none" else None)
            fits.append((site, found))
        loss = 0.0 if final else distance(self.expected, outputs(made, half(self.context, 1)))
        return _Cut(made, loss, tuple(fits))


def _now(tower: Tower, unit: Unit) -> Unit:
    """A unit with its sites as they are in a tower that was cut elsewhere."""
    return replace(unit, ends=tuple(tower.site(site.name) for site in unit.ends))


def _shortened(encoder: Encoder, kind: str, numbers: set[int | None], spec: Spec, context: Context) -> list[SiteReport]:
    tower = encoder.towers[kind]
    every = units(tower, spec.unit == "branch")
    free = [unit for unit in every if unit.layer in numbers]
    count = _count(len(every), len(free), spec, kind)
    if not count:
        return []
    trials = _Trials.of(encoder, kind, spec, context)
    gone: list[Unit] = []
    losses: dict[str, float] = {}
    for _ in context.progress.track(range(count), f"shorten {kind}", count):
        tried = [unit for unit in free if unit not in gone][: TRIES if gone else None]
        found = {unit.name: trials.cut(_ordered(every, [*gone, unit])).loss for unit in tried}
        if not gone:  # those that cost least on their own are tried first from here on
            free = sorted(free, key=lambda unit: found[unit.name])
        gone.append(min(tried, key=lambda unit: found[unit.name]))
        losses[gone[-1].name] = found[gone[-1].name]
    cut = trials.cut(_ordered(every, gone), final=True)
    rows = [_gone(tower, unit, site, losses[unit.name]) for unit in _ordered(every, gone) for site in unit.sites]
    rows += [_refitted(tower, cut.tower, site, found) for site, found in cut.fits]
    tower.graph, tower.sites = cut.tower.graph, cut.tower.sites
    return rows


def _count(whole: int, free: int, spec: Spec, kind: str) -> int:
    """How many units go. Raises UsageError where none would stay, or more than may go."""
    count = spec.blocks if spec.ratio is None else whole - _scores.kept_count(whole, spec.ratio, 1)
    assert count is not None
    if whole == 1 or count >= whole:
        what = f"{count or 1} of {whole} {spec.unit}s cannot go from the {kind} tower: one stays at least"
        raise UsageError(what, "blocks", "remove fewer, or leave this tower out with `towers`")
    if count > free:
        what = f"{count} {spec.unit}s are to go from the {kind} tower, and {free} of {whole} may"
        raise UsageError(what, "include/exclude", "remove fewer, or leave fewer out")
    return count


def _ordered(every: Iterable[Unit], gone: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in every if unit in gone]


def _gone(tower: Tower, unit: Unit, site: Site, loss: float) -> SiteReport:
    size = 4 * int(np.prod(site.shape))
    return SiteReport(tower.kind, site.name, site.role, f"{unit.name} goes", size, 0, loss, "all")


def _refitted(before: Tower, after: Tower, site: Site, found: Fitted) -> SiteReport:
    """What became of the product that takes over; `site` is as it was."""
    size = 4 * int(np.prod(after.site(site.name).shape))
    words = f"takes over what went beside it; {found.words}"
    return SiteReport(before.kind, site.name, site.role, words, size, size, found.error)
