"""`distill.bank`: see a fixed bank of the teacher's embeddings as the teacher sees it.

KL of softmaxed similarities, the teacher's at half the temperature (DIME-FM, 2303.18232). Images compare themselves
with the teacher's texts where there are captions, else among each other; they need not be pairs.
"""

from __future__ import annotations

from pydantic import Field

from compress.models.tower import Encoder
from compress.steps.distill._options import Losses, Training, Weight
from compress.steps.step import Context, StepReport

USE = "distill.bank"
EXAMPLE = {"steps": 8, "batch": 8, "held_out": 0}


class Weights(Losses):
    """Losses of `distill.bank`; those of other methods can be added."""

    bank: Weight = Field(1.0, description="KL of the similarities to a bank of the teacher's embeddings.")


class Spec(Training):
    """Options of `distill.bank`."""

    losses: Weights = Field(Weights(), description="weight of each loss")


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Train the chosen towers."""
    from compress.steps.distill._step import distill  # here, because reading a recipe must not load torch

    return distill(USE, encoder, spec, context)
