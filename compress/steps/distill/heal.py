"""`distill.heal`: a short training towards the teacher after pruning, on the images that the pruner was shown.

The same losses as `distill.features`, for fewer steps, and by SOAP, whose loss falls faster than AdamW's; without
`data.training` the calibration data are used. Matching the blocks of the dense model on few unlabeled images brings
most of it back.
"""

from __future__ import annotations

from pydantic import Field

from compress.models.tower import Encoder
from compress.recipe.fields import PositiveNumber
from compress.steps.distill._options import Optimizers, Training
from compress.steps.distill.features import Weights
from compress.steps.step import Context, StepReport

USE = "distill.heal"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0}


class Spec(Training):
    """Options of `distill.heal`."""

    losses: Weights = Field(Weights(), description="weight of each loss")
    optimizer: Optimizers = Field("soap", description="soap: Adam in the eigenbases of the gradients, or adamw")
    rate: PositiveNumber = Field(7e-4, description="highest learning rate; more where much was cut away")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers."""
    from compress.steps.distill._step import distill  # here, because reading a recipe must not load torch

    return distill(USE, encoder, spec, context)
