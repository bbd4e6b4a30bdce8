"""`quantize.gptq`: 4- or 8-bit weights in blocks, rounded column by column so that later ones make up for earlier ones.

GPTQ (arXiv:2210.17323) on the graph's own inputs, which a run over the calibration data in a child process sums up.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import BlockWeights
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch
from compress.steps._moments import Moments
from compress.steps._selection import by_tower, selected
from compress.steps.quantize._gptq import compensated, grid_for
from compress.steps.quantize._weights import round_weights
from compress.steps.step import Context, Form, StepReport

USE = "quantize.gptq"
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"weights": "int4", "block": 32}


class Spec(StepSpec):
    """Options of `quantize.gptq`."""

    weights: Literal["int4", "int8"] = Field("int4", description="bits of the weights")
    block: Literal[16, 32, 64, 128] = Field(32, description="weights that share a scale")
    symmetric: bool = Field(True, description="without zero points")
    damping: float = Field(0.01, gt=0, le=1, description="added to the second moments, as a share of their mean")
    order: Literal["importance", "input"] = Field(
        "importance", description="which columns are rounded first: the strongest inputs, or as they stand"
    )
    compute: Literal["float", "int8"] = Field(
        "float", description="int8: inputs are rounded as well, in blocks as it runs; another artifact, faster on a CPU"
    )


def form(spec: Spec) -> Form:
    """How a product will be held."""
    bits = int(spec.weights.removeprefix("int"))
    return Form(bits, spec.block, not spec.symmetric, calibrates=True, compute=spec.compute)


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Sum up the inputs of the selected sites and round their weights."""
    chosen = list(selected(encoder.towers, spec, DEFAULT))
    sites_of = by_tower(chosen, "compensate for", "quantize.int8_rtn")
    seen = {kind: watch(encoder.towers[kind], sites, context, Moments) for kind, sites in sites_of.items()}

    def rounding(weight: NDArray[np.float32], tower: Tower, site: Site) -> BlockWeights:
        return _rounded(weight, seen[tower.kind][site.name], site, spec)

    return round_weights(USE, chosen, context, rounding, spec.compute)


def _rounded(weight: NDArray[np.float32], moments: Moments, site: Site, spec: Spec) -> BlockWeights:
    gram = moments.gram / moments.rows
    grid = grid_for(weight, gram, int(spec.weights.removeprefix("int")), spec.block, spec.symmetric)
    try:
        return compensated(weight, gram, grid, spec.damping, spec.order == "importance")
    except np.linalg.LinAlgError as error:
        hint = "use more calibration samples, or more `damping`"
        raise UsageError(f"the second moments of its input cannot be inverted: {error}", site.name, hint) from error
