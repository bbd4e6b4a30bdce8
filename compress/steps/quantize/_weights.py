"""The loop that every weight-only method shares: select sites, round each weight, note what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, Compute
from compress.steps.step import Context, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix

Rounding = Callable[[NDArray[np.float32], Tower, Site], BlockWeights]


def round_weights(
    use: str,
    chosen: Iterable[tuple[Tower, Site]],
    context: Context,
    rounding: Rounding,
    compute: Compute = "float",
) -> StepReport:
    """Treat the chosen sites with rounded weights; `compute` is what the runtime multiplies them with."""
    rows = []
    for tower, site in context.progress.track(list(chosen), use):
        row = context.done.row(tower.kind, site.name)
        if row is None:
            row = _rounded(tower, site, rounding, compute)
            context.done.add(row)
        rows.append(row)
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    summary = f"{len(rows)} weights from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB"
    return StepReport(use, summary, tuple(rows))


def _rounded(tower: Tower, site: Site, rounding: Rounding, compute: Compute) -> SiteReport:
    weight = weight_matrix(tower, site)
    held = replace(rounding(weight, tower, site), compute="float" if site.op == "Gather" else compute)
    tower.treatments[site.name] = held
    return SiteReport(
        tower=tower.kind,
        site=site.name,
        role=site.role,
        treatment=in_words(held),
        bytes_before=weight.nbytes,
        bytes_after=stored_bytes(held),
        error=relative_error(weight, held.dequantized()),
    )


def in_words(held: BlockWeights) -> str:
    """`int4 in blocks of 32, inputs in int8`."""
    return f"int{held.bits} in blocks of {held.block}" + (", inputs in int8" if held.compute == "int8" else "")


def stored_bytes(held: BlockWeights) -> int:
    """Bytes of the packed codes, scales and zero points of a matrix product; rows start on whole bytes."""
    rows, blocks = held.scales.shape
    zeros = 0 if held.zero_points is None else rows * -(-blocks * held.bits // 8)
    return held.codes.size * held.bits // 8 + held.scales.nbytes + zeros


def relative_error(weight: NDArray[np.float32], restored: NDArray[np.float32]) -> float:
    """Frobenius norm of the difference over that of the weight."""
    return float(np.linalg.norm(restored - weight) / (np.linalg.norm(weight) or 1.0))
