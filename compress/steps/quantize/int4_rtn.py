"""`quantize.int4_rtn`: 4-bit weights, rounded to nearest in blocks; activations stay float.

On a CPU this makes files small; it does not make them fast.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compress.core.errors import UsageError
from compress.models.tower import Encoder
from compress.recipe.steps import StepSpec
from compress.steps._selection import selected
from compress.steps.quantize._rounding import in_blocks, per_tensor
from compress.steps.quantize._weights import round_weights
from compress.steps.step import Context, StepReport

BITS = 4
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"block": 32}


class Spec(StepSpec):
    """Options of `quantize.int4_rtn`."""

    block: Literal[16, 32, 64, 128] = Field(32, description="weights that share a scale")
    scale_per: Literal["block", "tensor"] = Field("block", description="`tensor` shares one scale in the whole weight")
    symmetric: bool = Field(True, description="without zero points")
    scale_search: Literal["mse", "absmax"] = Field("mse", description="how each scale is found")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights of the encoder's towers to 4 bits."""
    return apply_bits(f"quantize.int{BITS}_rtn", BITS, encoder, spec, context)


def apply_bits(use: str, bits: int, encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights to `bits` bits."""
    if spec.scale_per == "tensor" and not spec.symmetric:
        raise UsageError("one scale per tensor goes with symmetric: true", use)
    chosen = selected(encoder.towers, spec, DEFAULT)
    if spec.scale_per == "tensor":
        return round_weights(
            use, chosen, context, lambda weight, *_: per_tensor(weight, bits, spec.block, spec.scale_search)
        )
    return round_weights(
        use, chosen, context, lambda weight, *_: in_blocks(weight, bits, spec.block, spec.symmetric, spec.scale_search)
    )
