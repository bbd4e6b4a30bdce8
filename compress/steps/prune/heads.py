"""`prune.heads`: fewer attention heads, the rest fitted in closed form to give what all of them gave.

Heads go where the others can make up for them, as neurons do in `prune.mlp`; out_proj is fitted again.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.attention import Attention, attention, reshape_to
from compress.models.junctions import junction
from compress.models.surgery import linear, replace
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps._moments import Matrix
from compress.steps._ridge import Kept
from compress.steps._sensitivity import taylor
from compress.steps._walk import Calibrated, Tokens
from compress.steps.prune import _scores
from compress.steps.prune._attentions import in_turn
from compress.steps.prune._fitting import Compensate, fitted
from compress.steps.prune._layers import layers, ranges, row, summary
from compress.steps.step import Context, SiteReport, StepReport

USE = "prune.heads"
ROLES = ("attn.qkv", "attn.out")
EXAMPLE = {"ratio": 0.25}


class Spec(StepSpec):
    """Options of `prune.heads`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="share of each layer's heads that goes")
    multiple: Literal[1, 2, 4, 8] = Field(1, description="the count that stays is a multiple of this")
    score: Literal["residual", "fluctuation", "taylor"] = Field("residual", description="what decides which heads stay")
    compensate: Compensate = Field("ridge", description="what is fitted again: weights and bias, the bias, nothing")
    tokens: Tokens = Field("by_gradient", description="how tokens count: by the embedding's squared gradient, or alike")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Prune the heads of the selected layers."""
    rows: list[SiteReport] = []
    scores = _taylor(encoder, spec, context) if spec.score == "taylor" else {}
    for tower, found, seen in in_turn(encoder, spec, ROLES, context, spec.tokens):
        rows += _pruned(tower, found, seen, spec, scores.get((tower.kind, seen.junction.inner)))
    if not rows:
        raise UsageError("no head goes: the count that stays is that of all", "ratio", "use more, or a finer multiple")
    return StepReport(USE, summary(rows), tuple(rows))


def _taylor(encoder: Encoder, spec: Spec, context: Context) -> dict[tuple[str, str], Matrix]:
    """What the embedding loses with each head of the selected layers, by tower and the value that their heads make."""
    made: dict[tuple[str, str], Matrix] = {}
    for tower, chosen in layers(encoder, spec, ROLES):
        found = [attention(tower, [site for sites in layer.values() for site in sites]) for layer in chosen]
        gates = {junction(tower, each.output.site).inner: each.heads for each in found}
        made |= {(tower.kind, name): each for name, each in taylor(tower, gates, context).items()}
    return made


def _pruned(tower: Tower, found: Attention, seen: Calibrated, spec: Spec, scores: Matrix | None) -> list[SiteReport]:
    heads, width = found.heads, found.value_width
    if heads % spec.multiple:
        what = f"{heads} heads are no multiple of {spec.multiple}"
        raise UsageError(what, found.output.site.name, "use another `multiple`, or exclude this layer")
    count = _scores.kept_count(heads, spec.ratio, spec.multiple)
    if count == heads:
        return []
    weight, bias = (each.astype(np.float64) for each in linear(tower, found.output.site))
    if scores is None:
        stay = _kept(seen.inputs(0.01).centered(), weight, heads, count, spec.score)
    else:
        stay = _scores.choose(scores, count)
    keep = _columns(stay, width)
    made = fitted(seen, weight, bias, keep, spec.compensate)
    gone = ranges(np.setdiff1d(np.arange(heads), stay).tolist())
    for branch, size in ((found.query, found.query_width), (found.key, found.query_width), (found.value, width)):
        before, shift = linear(tower, branch.site)
        rows_of = _columns(stay, size)
        replace(tower, branch.site, before[rows_of], shift[rows_of])
        if branch.reshape is not None:
            reshape_to(tower, branch.reshape, count, size)
    replace(tower, found.output.site, made.fit.weight, made.fit.offset if spec.compensate != "none" else None)
    if found.output.reshape is not None:
        reshape_to(tower, found.output.reshape, count * width, None)
    words = f"{count} of {heads} heads stay"
    cut = [row(tower, branch.site, words, made.error, gone) for branch in (found.query, found.key, found.value)]
    return [*cut, row(tower, found.output.site, f"{count} of {heads} heads; {made.words}", made.error, gone)]


def _kept(covariance: Matrix, weight: Matrix, heads: int, count: int, score: str) -> Kept:
    if score == "residual":
        return _scores.eliminated(covariance, weight, heads, count)
    return _scores.choose(_scores.fluctuation(covariance, weight).reshape(heads, -1).sum(1), count)


def _columns(heads: Kept, width: int) -> Kept:
    """The columns of heads that are each `width` wide."""
    columns: Kept = (heads[:, None] * width + np.arange(width)).ravel()
    return columns
