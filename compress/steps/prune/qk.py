"""`prune.qk`: fewer query and key dims in every head, in the bases that keep most of the attention logits.

The logits q^T k of a head are approximated at a lower rank in closed form, from second moments of its queries and the
covariance of its keys, and q_proj and k_proj are folded into it. Calibrated on the tower as it comes to this step.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.attention import Attention, attention, reshape_to
from compress.models.junctions import in_order
from compress.models.surgery import linear, replace
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch_in_order
from compress.steps._moments import Moments
from compress.steps.prune import _scores, _subspace
from compress.steps.prune._layers import layers, row, summary
from compress.steps.step import Context, SiteReport, StepReport

USE = "prune.qk"
ROLES = ("attn.qkv",)
EXAMPLE = {"ratio": 0.25, "multiple": 4}


class Spec(StepSpec):
    """Options of `prune.qk`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="share of each head's query dims that goes")
    multiple: Literal[1, 4, 8, 16, 32] = Field(8, description="the count that stays in a head is a multiple of this")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Prune queries and keys of the selected layers."""
    rows: list[SiteReport] = []
    for tower, chosen in layers(encoder, spec, ROLES):
        numbers = {site.layer for layer in chosen for sites in layer.values() for site in sites}
        inner = [site for site in tower.sites if site.role.startswith("attn.") and site.layer in numbers]
        attentions = [attention(tower, [site for site in inner if site.layer == number]) for number in numbers]
        found = {each.query.site.name: each for each in attentions}
        order = in_order(tower, (each.query.site for each in attentions))
        seen = watch_in_order(tower, order, context, Moments)
        for site in order:
            rows += _pruned(tower, found[site.name], seen[site.name], spec)
        del seen  # it holds the graph, which is made compact next
    if not rows:
        raise UsageError("no dim goes: the count that stays is that of all", "ratio", "use more, or a finer multiple")
    return StepReport(USE, summary(rows), tuple(rows))


def _pruned(tower: Tower, found: Attention, seen: Moments, spec: Spec) -> list[SiteReport]:
    width, heads = found.query_width, found.heads
    count = _scores.kept_count(width, spec.ratio, spec.multiple)
    if count == width:
        return []
    query, key = found.query.site, found.key.site
    (q, q_bias), (k, k_bias) = ([each.astype(np.float64) for each in linear(tower, site)] for site in (query, key))
    queries, keys = seen.mapped(q, q_bias), seen.mapped(k, k_bias)
    moments, covariance = queries.gram / queries.rows, keys.covariance
    if not (np.isfinite(moments).all() and np.isfinite(covariance).all()):
        raise UsageError("queries or keys hold NaN or infinity: the float model itself is broken", query.name)
    spans = [slice(head * width, (head + 1) * width) for head in range(heads)]
    parts = [_subspace.of_logits(moments[span, span], covariance[span, span], count) for span in spans]
    first, second = _subspace.diagonal([part[0] for part in parts]), _subspace.diagonal([part[1] for part in parts])
    replace(tower, query, first @ q, first @ q_bias)
    replace(tower, key, second @ k, second @ (k_bias - keys.mean))
    for branch in (found.query, found.key):
        if branch.reshape is not None:
            reshape_to(tower, branch.reshape, heads, count)
    lost = float(np.sqrt(np.mean([part[2] for part in parts])))
    words = f"{count} of {width} query and key dims stay in each of {heads} heads"
    return [row(tower, site, words, lost) for site in (query, key)]
