"""`prune.vo`: fewer value dims in every head, in the basis that keeps most of what the output reads of them.

Each head keeps its best directions, v_proj and out_proj are folded into them, and out_proj is fitted again by a
centered ridge regression as in `prune.mlp`. Every head keeps as many, so that tensors stay rectangular.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.attention import Attention, reshape_to
from compress.models.surgery import linear, replace
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps._walk import Calibrated, Tokens
from compress.steps.prune import _scores, _subspace
from compress.steps.prune._attentions import in_turn
from compress.steps.prune._fitting import Compensate, fitted
from compress.steps.prune._layers import row, summary
from compress.steps.step import Context, SiteReport, StepReport

USE = "prune.vo"
ROLES = ("attn.qkv", "attn.out")
EXAMPLE = {"ratio": 0.25, "multiple": 4}


class Spec(StepSpec):
    """Options of `prune.vo`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="share of each head's value dims that goes")
    multiple: Literal[1, 4, 8, 16, 32] = Field(8, description="the count that stays in a head is a multiple of this")
    compensate: Compensate = Field("ridge", description="what is fitted again: weights and bias, the bias, nothing")
    tokens: Tokens = Field("by_gradient", description="how tokens count: by the embedding's squared gradient, or alike")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Prune the values of the selected layers."""
    rows: list[SiteReport] = []
    for tower, found, seen in in_turn(encoder, spec, ROLES, context, spec.tokens):
        rows += _pruned(tower, found, seen, spec)
    if not rows:
        raise UsageError("no dim goes: the count that stays is that of all", "ratio", "use more, or a finer multiple")
    return StepReport(USE, summary(rows), tuple(rows))


def _pruned(tower: Tower, found: Attention, seen: Calibrated, spec: Spec) -> list[SiteReport]:
    width, heads = found.value_width, found.heads
    count = _scores.kept_count(width, spec.ratio, spec.multiple)
    if count == width:
        return []
    value, output = found.value.site, found.output.site
    weight, bias = (each.astype(np.float64) for each in linear(tower, output))
    covariance = seen.inputs(0.01).centered()
    spans = [slice(head * width, (head + 1) * width) for head in range(heads)]
    parts = [_subspace.of_values(covariance[span, span], weight[:, span], count) for span in spans]
    turned = _subspace.diagonal([part[0] for part in parts])
    start = np.concatenate([part[1] for part in parts], 1)
    made = fitted(seen.mapped(turned), start, bias, np.arange(heads * count), spec.compensate)
    before, shift = linear(tower, value)
    replace(tower, value, turned @ before, turned @ shift)
    replace(tower, output, made.fit.weight, made.fit.offset if spec.compensate != "none" else None)
    for branch, sizes in ((found.value, (heads, count)), (found.output, (heads * count, None))):
        if branch.reshape is not None:
            reshape_to(tower, branch.reshape, *sizes)
    lost = f"{100 * float(np.mean([part[2] for part in parts])):.2g} % of their power lost"
    words = f"{count} of {width} value dims stay in each of {heads} heads; {lost}"
    return [
        row(tower, value, words, made.error),
        row(tower, output, f"{count} of {width} inputs a head; {made.words}", made.error),
    ]
