"""`quantize.bnb`: nf4, fp4 or int8 weights as bitsandbytes stores them, for target `torch` alone.

nf4 and fp4 are those of QLoRA (2305.14314): 16 values, a scale for each block; products are computed in float. int8 is
that of LLM.int8 (2208.07339), where inputs are rounded as well, each row by its own largest magnitude; its outlier
columns, which are found over a whole batch, are left out: an embedding would depend on its neighbours.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.core.errors import EnvironmentFailure, UsageError
from compress.models.tower import Encoder
from compress.models.treatment import BnbWeights
from compress.recipe.steps import StepSpec
from compress.steps._selection import selected
from compress.steps.quantize._weights import relative_error
from compress.steps.step import Context, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix

USE: Final = "quantize.bnb"
DEFAULT: Final = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2")
EXAMPLE: Final = {"weights": "nf4"}
TARGETS: Final = ("torch",)
INSTEAD: Final = "quantize.gptq with weights: int4 (quantize.int8_static for 8 bits)"
"""What serves the targets that this method does not."""

Kind = Literal["nf4", "fp4", "int8"]


class Spec(StepSpec):
    """Options of `quantize.bnb`."""

    weights: Kind = Field("nf4", description="how weights are stored")
    block: Literal[64, 128, 256, 512] = Field(64, description="weights that share a scale; not for int8")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights. Raises EnvironmentFailure where bitsandbytes is not installed."""
    rows = []
    for tower, site in context.progress.track(list(selected(encoder.towers, spec, DEFAULT)), USE):
        if site.op != "MatMul":
            raise UsageError(f"bitsandbytes has linear layers only, and this is a {site.op}", site.name, "leave it out")
        weight = weight_matrix(tower, site)
        held = rounded(weight, spec.weights, spec.block)
        tower.treatments[site.name] = held
        size, error = held.codes.nbytes + held.scales.nbytes, relative_error(weight, held.dequantized())
        rows.append(SiteReport(tower.kind, site.name, site.role, spec.weights, weight.nbytes, size, error))
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    return StepReport(USE, f"{len(rows)} weights from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB", tuple(rows))


def rounded(weight: NDArray[np.float32], kind: Kind, block: int) -> BnbWeights:
    """A weight (out, in) as bitsandbytes rounds it on a CPU."""
    import torch

    functional = _bitsandbytes()
    given = torch.from_numpy(np.ascontiguousarray(weight))
    rows, columns = weight.shape
    if kind == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(given)
        return BnbWeights(kind, codes.numpy(), scales.float().numpy(), np.empty(0, np.float32), 0, rows, columns)
    packed, state = functional.quantize_4bit(given, blocksize=block, quant_type=kind)
    return BnbWeights(kind, packed.numpy(), state.absmax.numpy(), state.code.numpy(), block, rows, columns)


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError as error:
        raise EnvironmentFailure("bitsandbytes is not installed", USE, "install the extra [bnb]") from error
    return functional
