"""`quantize.int8_static`: W8A8 with static scales on the inputs of matrix products; outputs stay float.

Weights are symmetric per output channel. Inputs get one scale and zero point each, in uint8, which is what x86 CPUs
have integer instructions for. Quantizing the inputs alone is both more accurate and faster than quantizing every
tensor, and because the scales are static an embedding does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from compress.core.errors import UsageError
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import StaticInt8
from compress.recipe.steps import StepSpec
from compress.steps._activations import watch
from compress.steps._selection import by_tower, selected
from compress.steps.quantize import _affine, _smoothing
from compress.steps.quantize._affine import Affine
from compress.steps.quantize._bias import correct_biases
from compress.steps.quantize._ranges import Ranges, lost
from compress.steps.quantize._rounding import int8_per_channel
from compress.steps.quantize._signed import Signed
from compress.steps.quantize._weights import relative_error
from compress.steps.step import Context, Form, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix

USE = "quantize.int8_static"
DEFAULT = ("attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection")
EXAMPLE = {"range": "percentile", "percentile": 99.99}
LEVELS = 127
STRENGTH = 0.7
"""Share of the range that moves into the weights. pocket-clip loses least at it: docs/decisions/074."""


class Spec(StepSpec):
    """Options of `quantize.int8_static`."""

    range: Literal["mse", "percentile"] = Field("mse", description="how each input's clip range is chosen")
    percentile: float = Field(99.99, gt=50, le=100, description="of the magnitudes, with range: percentile")
    symmetric: bool = Field(
        False, description="inputs around zero, as TensorRT takes them: the same numbers on a CPU as there"
    )
    smooth: float | None = Field(
        STRENGTH,
        ge=0,
        le=1,
        description="share of the inputs' range that moves into the weights wherever it costs nothing at run time; "
        "null: nowhere. Not done block by block",
    )
    rescale_above: float | None = Field(
        0.001,
        gt=0,
        lt=1,
        description="bring the channels of inputs closer to each other where their products lose more than this share: "
        "folded into what is before them, else by a multiplication; null: never. Not done block by block",
    )
    float_above: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="leave products in float that lose more than this share of their power by the rounding of inputs",
    )
    bias_correction: bool = Field(
        False, description="add what products lose on average over the calibration data to their biases"
    )


def form(spec: Spec) -> Form:
    """How a product will be held. Raises UsageError for what is done to a whole model at once."""
    asked = {"smooth": spec.smooth is not None, "bias_correction": spec.bias_correction}
    if named := [option for option, given in asked.items() if given and option in spec.model_fields_set]:
        hint = f"leave `{named[0]}` out, or model.streaming: false where there is memory for five times the float model"
        raise UsageError("is not done block by block", named[0], hint)
    return Form(8, calibrates=True)


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Calibrate the inputs of the selected sites and round their weights to 8 bits."""
    rows: list[SiteReport] = []
    floats: list[str] = []
    sites_of = by_tower(selected(encoder.towers, spec, DEFAULT), "quantize", "quantize.int8_rtn for it")
    for kind, sites in sites_of.items():
        made, left = _quantize(encoder.towers[kind], sites, spec, context)
        rows += made
        floats += [f"{kind}:{name}" for name in left]
    if not rows:
        raise UsageError(
            "every product loses more than float_above allows", "float_above", "nothing would be quantized"
        )
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    told = f"; left in float: {', '.join(floats)}" if floats else ""
    summary = f"{len(rows)} products from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB{told}"
    report = StepReport(USE, summary, tuple(rows))
    return correct_biases(encoder.towers, report, context) if spec.bias_correction else report


def _quantize(tower: Tower, sites: list[Site], spec: Spec, context: Context) -> tuple[list[SiteReport], list[str]]:
    """Treat the sites of one tower; returns what was done, and the names of those that stay in float."""
    ranges, closer = _closer(tower, sites, spec, context)
    rows: list[SiteReport] = []
    left: list[str] = []
    last: tuple[Ranges, Affine] | None = None  # sites that read one value stand next to each other
    for site in sites:
        if (row := context.done.row(tower.kind, site.name)) is not None:
            rows.append(row)
            continue
        seen = ranges[site.name]
        if last is None or last[0] is not seen:
            last = seen, _grid(seen.histogram, spec)
        loses = lost(seen, last[1], weight_matrix(tower, site))
        if spec.float_above is not None and loses > spec.float_above:
            left.append(site.name)
            continue
        told = f"int8 static, {_in_words(last[1], seen.histogram)}, {100 * loses:.2g} % noise"
        told += ", rescaled" if site.name in closer else ""
        rows.append(_treated(tower, site, last[1], told))
        context.done.add(rows[-1])
    return rows, left


def _closer(
    tower: Tower, sites: list[Site], spec: Spec, context: Context
) -> tuple[Mapping[str, Ranges], frozenset[str]]:
    """What flows into the sites, after its channels were brought closer to each other where the options say so.

    With it the names of the sites that lost more than `rescale_above` and were rescaled for it.
    """
    ranges = watch(tower, sites, context, Ranges)
    if spec.smooth is not None and not tower.streamed and _smoothing.fold_all(tower, sites, ranges, spec.smooth):
        ranges = watch(tower, sites, context, Ranges)
    limit = spec.rescale_above
    if limit is None or tower.streamed:
        return ranges, frozenset()
    worst = []
    for group in _smoothing.groups(tower, sites):
        seen = ranges[group[0].name]
        weights = np.concatenate([weight_matrix(tower, site) for site in group])
        if lost(seen, _grid(seen.histogram, spec), weights) > limit:
            worst.append(group)
    changed = _smoothing.rescale(tower, worst, ranges, spec.smooth or STRENGTH)
    if changed:
        ranges = {**ranges, **watch(tower, changed, context, Ranges)}
    return ranges, frozenset(site.name for site in changed)


def _treated(tower: Tower, site: Site, grid: Affine, told: str) -> SiteReport:
    weight = weight_matrix(tower, site)
    codes, scales = int8_per_channel(weight)
    tower.treatments[site.name] = StaticInt8(codes, scales, grid.scale, zero_point=grid.zero_point)
    error = relative_error(weight, codes * scales[:, None])
    return SiteReport(tower.kind, site.name, site.role, told, weight.nbytes, codes.nbytes + scales.nbytes, error)


def _grid(seen: Signed, spec: Spec) -> Affine:
    """How an input is rounded."""
    by_share = spec.range == "percentile"
    if spec.symmetric:
        return Affine.around(seen.percentile(spec.percentile) if by_share else seen.least_error(LEVELS))
    return _affine.percentile(seen, spec.percentile) if by_share else _affine.least_error(seen)


def _in_words(grid: Affine, seen: Signed) -> str:
    """`inputs in -0.17 to 4.6 of -0.17 to 6.89`."""
    low, high = -grid.zero_point * grid.scale, (_affine.TOP - grid.zero_point) * grid.scale
    return f"inputs in {low:.3g} to {high:.3g} of {seen.lowest:.3g} to {seen.highest:.3g}"
