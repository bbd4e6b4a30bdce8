"""`distill.qad`: training through the rounding of what is quantized already, so that its integers recover.

The same losses as `distill.features`, computed with the weights and inputs as the artifact holds them; what is trained
are the float weights behind the integers, and the biases and norms that stay in float. The new integers stand in the
blocks of the old ones, so a file has the same size and the same kernels as before.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.tower import Encoder, Tower
from compress.models.treatment import BlockWeights, Treatment
from compress.recipe.fields import PositiveNumber
from compress.steps.distill._options import Training
from compress.steps.distill.features import Weights
from compress.steps.quantize._weights import stored_bytes
from compress.steps.step import Context, SiteReport, StepReport

USE = "distill.qad"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0, "rate": 3e-4}


class Spec(Training):
    """Options of `distill.qad`."""

    losses: Weights = Field(Weights(), description="weight of each loss")
    rate: PositiveNumber = Field(1e-4, description="highest learning rate; integers move in jumps")
    scales: Literal["fixed", "learned"] = Field(
        "fixed", description="learned: every block's scale is trained as well (LSQ), also where blocks shared one"
    )


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers through their treatments.

    Raises UsageError where none of them is quantized, or one is in half precision or 8-bit floats.
    """
    from compress.steps.distill import _fake_quant as fake_quant  # here, because reading a recipe must not load torch
    from compress.steps.distill._step import trained

    towers: dict[str, Tower] = {kind: encoder.towers[kind] for kind in spec.towers if kind in encoder.towers}
    found = {kind: fake_quant.fakes(tower, spec.scales == "learned") for kind, tower in towers.items()}
    if towers and not any(found.values()):
        hint = "quantize in a step before; distill.heal trains towers in float"
        raise UsageError("nothing is quantized, so there is no rounding to train through", USE, hint)
    before = {kind: dict(tower.treatments) for kind, tower in towers.items()}
    for kind, tower in towers.items():
        fake_quant.start(tower, found[kind])

    def settle(made: Encoder) -> None:
        for kind, fakes in found.items():
            fake_quant.settle(made.towers[kind], fakes)

    report = trained(USE, encoder, spec, context, found, settle)
    settle(encoder)
    rows: list[SiteReport] = []
    for kind, tower in towers.items():
        rows += [row for row in (_row(tower, name, old) for name, old in before[kind].items()) if row.error]
    floats = [row for row in report.rows if row.site not in before[row.tower]]
    return StepReport(USE, report.summary, (*rows, *floats), curves=report.curves)


def _row(tower: Tower, name: str, old: Treatment) -> SiteReport:
    """What became of a treated site; `error` is how far the weight went from what it was in integers before."""
    site, new = tower.site(name), tower.treatments[name]
    a, b = _restored(old), _restored(new)
    moved = float(np.linalg.norm(b - a) / (np.linalg.norm(a) or 1.0))
    words = f"int{new.bits} in blocks of {new.block}" if isinstance(new, BlockWeights) else "int8 static"
    return SiteReport(tower.kind, name, site.role, f"{words}, trained", _bytes(old), _bytes(new), moved)


def _restored(held: Treatment) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if isinstance(held, BlockWeights):
        return held.dequantized()
    return np.asarray(held.codes * held.scales[:, None], np.float32)  # type: ignore[union-attr]


def _bytes(held: Treatment) -> int:
    return stored_bytes(held) if isinstance(held, BlockWeights) else held.codes.nbytes + held.scales.nbytes  # type: ignore[union-attr]
