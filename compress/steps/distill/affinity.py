"""`distill.affinity`: see the images and texts of a batch as near as the teacher sees them.

Affinity mimicking of TinyCLIP (2309.12314), both ways; the student starts from the weights that are there, such as
those of the pruned teacher. A tower that is not trained stands aside for the teacher's.
"""

from __future__ import annotations

from pydantic import Field

from compress.models.tower import Encoder
from compress.steps.distill._options import Losses, Training, Weight
from compress.steps.step import Context, StepReport

USE = "distill.affinity"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0}


class Weights(Losses):
    """Losses of `distill.affinity`; those of other methods can be added."""

    affinity: Weight = Field(1.0, description="Image-text similarities of a batch, as the teacher sees them.")


class Spec(Training):
    """Options of `distill.affinity`."""

    losses: Weights = Field(Weights(), description="weight of each loss")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers."""
    from compress.steps.distill._step import distill  # here, because reading a recipe must not load torch

    return distill(USE, encoder, spec, context)
