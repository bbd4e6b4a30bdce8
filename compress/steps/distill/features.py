"""`distill.features`: make the embeddings and block outputs the teacher's.

The teacher is the model before any step; what it says of a sample is computed once. Needs no pairs: images train the
vision tower, captions the text tower. CLIP-KD (2307.12732) finds mimicked features the largest part of the gain.
"""

from __future__ import annotations

from pydantic import Field

from compress.models.tower import Encoder
from compress.steps.distill._options import Losses, Training, Weight
from compress.steps.step import Context, StepReport

USE = "distill.features"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0}


class Weights(Losses):
    """Losses of `distill.features`; those of other methods can be added."""

    features: Weight = Field(1.0, description="1 - cosine to the teacher's embedding.")
    hidden: Weight = Field(1.0, description="Squared distance to what comes out of the teacher's blocks, relative.")


class Spec(Training):
    """Options of `distill.features`."""

    losses: Weights = Field(Weights(), description="weight of each loss")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers."""
    from compress.steps.distill._step import distill  # here, because reading a recipe must not load torch

    return distill(USE, encoder, spec, context)
