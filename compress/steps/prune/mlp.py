"""`prune.mlp`: fewer neurons in the blocks' MLPs, the rest fitted in closed form to give what all of them gave.

Neurons go where the others can make up for them (optimal brain surgery on the covariance of what fc2 reads, as in
ZipLM, arXiv:2302.04089); fc2 is fitted again by a centered ridge regression (arXiv:2602.05243), block by block on what
comes out of the blocks pruned before.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.junctions import in_order, junction
from compress.models.surgery import linear, narrow, shift
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps._moments import Matrix
from compress.steps._ridge import Kept
from compress.steps._sensitivity import taylor
from compress.steps._walk import Calibrated, Tokens, walk
from compress.steps.prune import _scores
from compress.steps.prune._fitting import Compensate, fitted
from compress.steps.prune._layers import Layer, layers, ranges, row, summary
from compress.steps.step import Context, SiteReport, StepReport

USE = "prune.mlp"
ROLES = ("mlp.fc1", "mlp.fc2")
EXAMPLE = {"ratio": 0.2, "multiple": 8}


class Spec(StepSpec):
    """Options of `prune.mlp`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of each layer's neurons that goes")
    multiple: Literal[1, 4, 8, 16, 32, 64] = Field(8, description="the count that stays is a multiple of this")
    score: _scores.Score = Field("residual", description="what decides which neurons stay")
    compensate: Compensate = Field("ridge", description="what is fitted again: weights and bias, the bias, nothing")
    tokens: Tokens = Field("by_gradient", description="how tokens count: by the embedding's squared gradient, or alike")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Prune the MLPs of the selected layers."""
    rows: list[SiteReport] = []
    for tower, chosen in layers(encoder, spec, ROLES):
        by_site = {layer["mlp.fc2"][0].name: layer for layer in map(_checked, chosen)}
        order = in_order(tower, (layer["mlp.fc2"][0] for layer in by_site.values()))
        ends = [junction(tower, site) for site in order]
        scores = (
            taylor(tower, {each.inner: each.site.shape[0] for each in ends}, context) if spec.score == "taylor" else {}
        )
        for seen in walk(tower, ends, context, spec.tokens):
            rows += _pruned(tower, by_site[seen.junction.site.name], seen, spec, scores.get(seen.junction.inner))
    if not rows:
        raise UsageError(
            "no neuron goes: the count that stays is that of all", "ratio", "use more, or a finer multiple"
        )
    return StepReport(USE, summary(rows), tuple(rows))


def _checked(layer: Layer) -> Layer:
    if not layer["mlp.fc1"] or len(layer["mlp.fc2"]) != 1:
        names = ", ".join(site.name for sites in layer.values() for site in sites)
        raise UsageError(f"this layer has no MLP of fc1 and one fc2: {names}", "towers", "exclude it")
    return layer


def _pruned(tower: Tower, layer: Layer, seen: Calibrated, spec: Spec, scores: Matrix | None) -> list[SiteReport]:
    first, second = layer["mlp.fc1"], layer["mlp.fc2"][0]
    width = second.shape[0]
    count = _scores.kept_count(width, spec.ratio, spec.multiple)
    if count == width:
        return []
    weight, bias = (each.astype(np.float64) for each in linear(tower, second))
    keep = _kept(tower, layer, seen, weight, count, spec.score) if scores is None else _scores.choose(scores, count)
    made = fitted(seen, weight, bias, keep, spec.compensate)
    narrow(tower, first, second, keep, made.fit.weight)
    if spec.compensate != "none":
        shift(tower, second, made.fit.offset)
    gone = ranges(np.setdiff1d(np.arange(width), keep).tolist())
    cut = [row(tower, site, f"{count} of {width} neurons stay", made.error, gone) for site in first]
    return [*cut, row(tower, second, f"{count} of {width} inputs; {made.words}", made.error, gone)]


def _kept(tower: Tower, layer: Layer, seen: Calibrated, weight: Matrix, count: int, score: _scores.Score) -> Kept:
    if score == "magnitude":
        before = np.concatenate([linear(tower, site)[0] for site in layer["mlp.fc1"]], 1).astype(np.float64)
        return _scores.choose(_scores.magnitude(weight, before), count)
    covariance = seen.inputs(0.01).centered()
    if score == "variance":
        return _scores.choose(_scores.variance(covariance), count)
    if score == "fluctuation":
        return _scores.choose(_scores.fluctuation(covariance, weight), count)
    return _scores.eliminated(covariance, weight, len(covariance), count)
