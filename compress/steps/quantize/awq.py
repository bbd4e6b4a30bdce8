"""`quantize.awq`: 4- or 8-bit weights in blocks, after strong channels are scaled up in the weight and down before it.

AWQ (arXiv:2306.00978). The scales go into the LayerNormalization or the value projection before the product, so they
cost nothing at run time; a product behind an activation has no such place and is only rounded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import BlockWeights
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch
from compress.steps._moments import Moments
from compress.steps._selection import by_tower, selected
from compress.steps.quantize import _fold
from compress.steps.quantize._awq import best_power, scales_of
from compress.steps.quantize._gptq import compensated, grid_for
from compress.steps.quantize._weights import round_weights
from compress.steps.step import Context, StepReport
from compress.targets.graph.emitter import weight_matrix

USE = "quantize.awq"
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"weights": "int4", "block": 32}

Gram = NDArray[np.float64]


class Spec(StepSpec):
    """Options of `quantize.awq`."""

    weights: Literal["int4", "int8"] = Field("int4", description="bits of the weights")
    block: Literal[16, 32, 64, 128] = Field(32, description="weights that share a scale")
    symmetric: bool = Field(True, description="without zero points")
    rounding: Literal["nearest", "compensated"] = Field(
        "nearest", description="after scaling: to nearest, or as quantize.gptq rounds"
    )


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Sum up the inputs of the selected sites, move scales where there is a place for them, and round."""
    chosen = list(selected(encoder.towers, spec, DEFAULT))
    sites_of = by_tower(chosen, "scale", "quantize.int8_rtn")
    grams: dict[tuple[str, str], Gram] = {}
    moved = 0
    for kind, sites in sites_of.items():
        tower = encoder.towers[kind]
        seen = watch(tower, sites, context, Moments)
        grams |= {(kind, name): moments.gram / moments.rows for name, moments in seen.items()}
        for source in _fold.sources(tower, sites):
            moved += _scaled(tower, source, grams, spec)

    def rounding(weight: NDArray[np.float32], tower: Tower, site: Site) -> BlockWeights:
        return _rounded(weight, grams[tower.kind, site.name], spec)

    report = round_weights(USE, chosen, context, rounding)
    return StepReport(report.use, f"{report.summary}; scales moved before {moved} of them", report.rows)


def _scaled(tower: Tower, source: _fold.Source, grams: dict[tuple[str, str], Gram], spec: Spec) -> int:
    """Move the best scales of one input, in the graph and in its moments; returns how many products gained by it."""
    gram = grams[tower.kind, source.sites[0].name]
    weights = [weight_matrix(tower, site) for site in source.sites]
    nearest = spec.model_copy(update={"rounding": "nearest"})  # the search is over 21 powers, compensation is slow
    power, loss, before = best_power(
        weights, gram, lambda weight, moments: _rounded(weight, moments, nearest).dequantized()
    )
    if loss >= before:
        return 0
    scales = scales_of(np.sqrt(np.maximum(np.diag(gram), 0)), power)
    _fold.fold(tower, source, scales)
    for site in source.sites:
        grams[tower.kind, site.name] = gram / np.outer(scales, scales)
    return len(source.sites)


def _rounded(weight: NDArray[np.float32], gram: Gram, spec: Spec) -> BlockWeights:
    grid = grid_for(weight, gram, int(spec.weights.removeprefix("int")), spec.block, spec.symmetric)
    return compensated(weight, gram, grid, 0.01, by_importance=True) if spec.rounding == "compensated" else grid
