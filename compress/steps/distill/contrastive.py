"""`distill.contrastive`: tell each image's own caption from the others of the batch.

The loss of CLIP (2103.00020); it needs pairs, and negatives come from all processes. On its own it leaves the teacher's
space, so old indexes stop working; `losses: {features: 1}` keeps it there.
"""

from __future__ import annotations

from pydantic import Field

from compress.models.tower import Encoder
from compress.steps.distill._options import Losses, Training, Weight
from compress.steps.step import Context, StepReport

USE = "distill.contrastive"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0}


class Weights(Losses):
    """Losses of `distill.contrastive`; those of other methods can be added."""

    contrastive: Weight = Field(1.0, description="Images to their own captions, and captions to their own images.")


class Spec(Training):
    """Options of `distill.contrastive`."""

    losses: Weights = Field(Weights(), description="weight of each loss")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers."""
    from compress.steps.distill._step import distill  # here, because reading a recipe must not load torch

    return distill(USE, encoder, spec, context)
