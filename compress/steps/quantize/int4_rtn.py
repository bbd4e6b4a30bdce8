"""`quantize.int4_rtn`: 4-bit weights, rounded to nearest in blocks; activations stay float.

On a CPU this makes files small; it does not make them fast.
"""

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
from compress.steps.quantize._bias import correct_biases
from compress.steps.quantize._rounding import in_blocks, per_tensor
from compress.steps.quantize._weights import round_weights
from compress.steps.step import Context, Form, StepReport

BITS = 4
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"block": 32}


class Spec(StepSpec):
    """Options of `quantize.int4_rtn`."""

    block: Literal[16, 32, 64, 128] = Field(32, description="weights that share a scale")
    scale_per: Literal["block", "tensor"] = Field("block", description="`tensor` shares one scale in the whole weight")
    symmetric: bool = Field(True, description="without zero points")
    scale_search: Literal["mse", "absmax"] = Field("mse", description="how each scale is found")
    compute: Literal["float", "int8"] = Field(
        "float", description="int8: inputs are rounded as well, in blocks as it runs; another artifact, faster on a CPU"
    )
    bias_correction: bool = Field(
        False, description="add what products lose on average over the calibration data to their biases"
    )


def form(spec: Spec) -> Form:
    """How a product will be held."""
    return form_of(BITS, spec)


def form_of(bits: int, spec: Spec) -> Form:
    """The same for so many bits. Raises UsageError for what is done to a whole model at once."""
    if spec.bias_correction:
        hint = "leave `bias_correction` out, or model.streaming: false where memory holds the float model five times"
        raise UsageError("biases are not corrected block by block", "bias_correction", hint)
    return Form(bits, spec.block, not spec.symmetric, compute=spec.compute)


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights of the encoder's towers to 4 bits."""
    return apply_bits(f"quantize.int{BITS}_rtn", BITS, encoder, spec, context)


def apply_bits(use: str, bits: int, encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights to `bits` bits."""
    if spec.scale_per == "tensor" and not spec.symmetric:
        raise UsageError("one scale per tensor goes with symmetric: true", use)
    chosen = list(selected(encoder.towers, spec, DEFAULT))

    def rounding(weight: NDArray[np.float32], *_: object) -> BlockWeights:
        if spec.scale_per == "tensor":
            return per_tensor(weight, bits, spec.block, spec.scale_search)
        return in_blocks(weight, bits, spec.block, spec.symmetric, spec.scale_search)

    report = round_weights(use, chosen, context, rounding, spec.compute)
    return correct_biases(encoder.towers, report, context) if spec.bias_correction else report
