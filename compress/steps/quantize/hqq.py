"""`quantize.hqq`: 4- or 8-bit weights in blocks whose zero points a half-quadratic search finds; needs no data."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.tower import Encoder
from compress.models.treatment import BlockWeights
from compress.recipe.steps import StepSpec
from compress.steps._selection import selected
from compress.steps.quantize._hqq import half_quadratic
from compress.steps.quantize._weights import round_weights
from compress.steps.step import Context, Form, StepReport
from compress.targets.graph.emitter import weight_matrix

USE = "quantize.hqq"
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"weights": "int4", "block": 64}


class Spec(StepSpec):
    """Options of `quantize.hqq`."""

    weights: Literal["int4", "int8"] = Field("int4", description="bits of the weights")
    block: Literal[16, 32, 64, 128] = Field(64, description="weights that share a scale and a zero point")
    compute: Literal["float", "int8"] = Field(
        "float", description="int8: inputs are rounded as well, in blocks as it runs; another artifact, faster on a CPU"
    )


def form(spec: Spec) -> Form:
    """How a product will be held."""
    return Form(int(spec.weights.removeprefix("int")), spec.block, zero_points=True, compute=spec.compute)


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights. Raises UsageError for a weight that holds NaN or infinity."""
    bits = int(spec.weights.removeprefix("int"))
    chosen = list(selected(encoder.towers, spec, DEFAULT))
    for tower, site in chosen:
        if not np.isfinite(weight_matrix(tower, site)).all():
            raise UsageError("the weight holds NaN or infinity: the float model itself is broken", site.name)

    def rounding(weight: NDArray[np.float32], *_: object) -> BlockWeights:
        return half_quadratic(weight, bits, spec.block)

    return round_weights(USE, chosen, context, rounding, spec.compute)
