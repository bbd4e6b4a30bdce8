"""`quantize.fp8_static`: weights and inputs of matrix products in 8-bit floats (E4M3FN), for `tensorrt` alone.

The format is that of 2209.05433: no infinities, 448 at the most. Weights have a scale for each output, each input has
one that puts its largest calibrated magnitude at 448.
"""

from __future__ import annotations

from typing import Final

from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import StaticFloat8
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch
from compress.steps._selection import by_tower, selected
from compress.steps.quantize._float8 import LARGEST, decoded, float8_per_channel
from compress.steps.quantize._histogram import SMALLEST
from compress.steps.quantize._largest import Largest
from compress.steps.quantize._weights import relative_error
from compress.steps.step import Context, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix

USE: Final = "quantize.fp8_static"
DEFAULT: Final = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE: Final = {"include": ["mlp.fc1", "mlp.fc2"]}
TARGETS: Final = ("tensorrt",)
"""Runtimes that compute with what this method decides."""


class Spec(StepSpec):
    """Options of `quantize.fp8_static`: none but those of every step."""


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Calibrate the inputs of the selected sites and round their weights to E4M3FN."""
    sites_of = by_tower(selected(encoder.towers, spec, DEFAULT), "quantize", "quantize.fp16 for it")
    rows = [row for kind, sites in sites_of.items() for row in _quantize(encoder.towers[kind], sites, context)]
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    return StepReport(USE, f"{len(rows)} products from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB", tuple(rows))


def _quantize(tower: Tower, sites: list[Site], context: Context) -> list[SiteReport]:
    seen = watch(tower, sites, context, Largest)
    rows = []
    for site in sites:
        weight, largest = weight_matrix(tower, site), max(seen[site.name].largest, SMALLEST)
        codes, scales = float8_per_channel(weight)
        tower.treatments[site.name] = StaticFloat8(codes, scales, largest / LARGEST)
        error = relative_error(weight, decoded(codes) * scales[:, None])
        told = f"fp8 static, inputs up to {largest:.3g}"
        size = codes.nbytes + scales.nbytes
        rows.append(SiteReport(tower.kind, site.name, site.role, told, weight.nbytes, size, error))
    return rows
