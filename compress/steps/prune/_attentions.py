"""The attention of the layers that a step prunes, one after another, each calibrated on the tower as it is by then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compress.models.attention import Attention, attention
from compress.models.junctions import in_order, junction
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps._walk import Calibrated, Tokens, walk
from compress.steps.prune._layers import layers
from compress.steps.step import Context


def in_turn(
    encoder: Encoder, spec: StepSpec, roles: Sequence[str], context: Context, tokens: Tokens
) -> Iterator[tuple[Tower, Attention, Calibrated]]:
    """Each selected layer's tower and attention, with what reaches its output product.

    A layer may be cut before the next is asked for: calibration follows what was done.
    """
    for tower, chosen in layers(encoder, spec, roles):
        found = [attention(tower, [site for sites in layer.values() for site in sites]) for layer in chosen]
        by_site = {each.output.site.name: each for each in found}
        order = in_order(tower, (each.output.site for each in found))
        for seen in walk(tower, [junction(tower, site) for site in order], context, tokens):
            yield tower, by_site[seen.junction.site.name], seen
