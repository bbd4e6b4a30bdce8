"""`quantize.fp16`: weights in half precision, and on targets that compute in it, everything that its range allows.

Calibration shows which values come near the largest number of half precision, 65504: there, and in sums and norms, the
graph stays in float, with casts around it. On `onnxruntime-cpu` weights are stored in half and computed in float.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import Float16
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch_values
from compress.steps._selection import selected
from compress.steps.quantize._largest import Largest
from compress.steps.quantize._weights import relative_error
from compress.steps.step import Context, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix
from compress.targets.graph.half import LARGEST
from compress.targets.graph.types import float_values

USE: Final = "quantize.fp16"
DEFAULT: Final = ("patch_embed", "embedding", "attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE: Final = {"headroom": 4.0}


class Spec(StepSpec):
    """Options of `quantize.fp16`."""

    headroom: float = Field(2.0, ge=1, le=1024, description="how far below 65504 the largest calibrated value must be")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights to half precision and note which values of their towers must stay in float."""
    by_tower: dict[str, list[Site]] = defaultdict(list)
    for tower, site in selected(encoder.towers, spec, DEFAULT):
        by_tower[tower.kind].append(site)
    rows: list[SiteReport] = []
    told = []
    for kind, sites in by_tower.items():
        tower = encoder.towers[kind]
        wide = _wide(tower, spec.headroom, context)
        told.append(f"{len(wide)} wide values in {kind}")
        rows += [_rounded(tower, site, wide) for site in sites]
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    summary = f"{len(rows)} weights from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB; {', '.join(told)}"
    return StepReport(USE, summary, tuple(rows))


def _wide(tower: Tower, headroom: float, context: Context) -> NDArray[np.str_]:
    """Names of the values, inputs among them, whose largest calibrated magnitude leaves too little room."""
    seen = watch_values(tower, float_values(tower.graph), context, Largest)
    return np.array(sorted(name for name, each in seen.items() if each.largest * headroom > LARGEST), np.str_)


def _rounded(tower: Tower, site: Site, wide: NDArray[np.str_]) -> SiteReport:
    weight = weight_matrix(tower, site)
    with np.errstate(over="ignore"):
        values = np.clip(weight, -LARGEST, LARGEST).astype(np.float16)
    held = Float16(values, wide)
    tower.treatments[site.name] = held
    error = relative_error(weight, held.dequantized())
    return SiteReport(tower.kind, site.name, site.role, "fp16", weight.nbytes, values.nbytes, error)
