"""`calibrate.logit_scale`: the scale of the similarities, refitted to what other steps have made of both towers.

Written last in a recipe. It changes one number, in the runtime file, and no rank: probabilities and thresholds are what
it mends (2509.21173 reports that compressed CLIPs become badly calibrated).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field

from compress.core.errors import UsageError
from compress.data import runtime
from compress.models.tower import Encoder, Tower
from compress.recipe.steps import StepSpec
from compress.steps.calibrate import _scale
from compress.steps.embedding import embeddings
from compress.steps.step import Context, StepReport

USE: Final = "calibrate.logit_scale"
EXAMPLE: Final = {"to": "reference"}
KINDS: Final = ("vision", "text")
FEWEST: Final = 16
"""Images in each half of the calibration data: one half is fitted to, the other one judges."""


class Spec(StepSpec):
    """Options of `calibrate.logit_scale`. It works on both towers; `include` and `exclude` do not apply."""

    to: Literal["pairs", "reference"] = Field(
        "pairs", description="what probabilities shall tell: which caption is true, or what the reference says"
    )


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Fit the scale to one half of the calibration pairs; the other half says what it is worth.

    Raises UsageError for an encoder without a scale or of one tower, and for data without captions.
    """
    before = encoder.logit_scale
    if before is None or len(encoder.towers) < 2:
        raise UsageError("the model has no logit scale", USE, "leave this step out")
    if spec.include or spec.exclude or spec.towers != KINDS:
        raise UsageError("the scale belongs to both towers", USE, "leave out towers, include and exclude")
    if context.pairs is None or context.feeds is None:
        raise UsageError("this step needs calibration data", "data.calibration", "add data: {calibration: {...}}")
    found = _scale.cosines(*(_embedded(encoder.towers[kind], context) for kind in KINDS))
    if len(found) < 2 * FEWEST:
        few = f"{len(found)} calibration images are too few"
        raise UsageError(few, "data.calibration.samples", f"{2 * FEWEST} at least")
    fitted_to, judged_by = (slice(None, None, 2), slice(1, None, 2))
    if spec.to == "reference":
        original = _scale.cosines(*(_embedded(_original(encoder.towers[kind], context), context) for kind in KINDS))
        wanted = tuple(_scale.probabilities(before * half) for half in (original[fitted_to], original[fitted_to].T))
        right = original == original.max(1, keepdims=True)
    else:
        pairs = context.pairs()
        wanted = _scale.targets(pairs[fitted_to], found.shape[1])
        right = _scale.targets(pairs, found.shape[1])[0] > 0
    fitted = _scale.fit(found[fitted_to], (wanted[0], wanted[1]), before)
    if fitted is None:
        told = f"stays {before:.4g}: the pairs do not bound it within {_scale.REACH:g} times"
        return StepReport(USE, told, ())
    was, now = (_scale.calibration_error(scale, found[judged_by], right[judged_by]) for scale in (before, fitted))
    what = "captions" if spec.to == "pairs" else "the reference's answers"
    error = f"expected calibration error {100 * was:.2f} -> {100 * now:.2f} %"
    return StepReport(USE, f"{before:.4g} -> {fitted:.4g}; {error} on {what} held out", (), logit_scale=fitted)


def _embedded(tower: Tower, context: Context) -> NDArray[np.float32]:
    (made,) = embeddings(tower, [tower.treatments], context)
    if not np.isfinite(made).all():
        raise UsageError("the embeddings hold NaN or infinity: an earlier step broke the tower", f"{tower.kind} tower")
    return made


def _original(tower: Tower, context: Context) -> Tower:
    """The tower of the float reference; where nobody says where it lies, the float graph as it stands."""
    if context.reference is None:
        return replace(tower, treatments={})
    file = getattr(runtime.read(context.reference).towers, tower.kind)
    return replace(tower, graph=onnx.load(context.reference / file.file), output=file.output, treatments={}, sites=())
