"""The options that every training step has: what it trains towards, for how long, how fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from compress.recipe.fields import PositiveInt, PositiveNumber, Strict
from compress.recipe.steps import StepSpec

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Optimizers = Literal["adamw", "soap"]
Where = Literal["auto", "child", "device", "sharded"]


class Losses(Strict):
    """The weight of each loss; 0 leaves it out. A step's own losses have a weight from the start."""

    features: Weight = Field(0.0, description="1 - cosine to the teacher's embedding.")
    hidden: Weight = Field(0.0, description="Squared distance to what comes out of the teacher's blocks, relative.")
    bank: Weight = Field(0.0, description="KL of the similarities to a bank of the teacher's embeddings.")
    affinity: Weight = Field(0.0, description="Image-text similarities of a batch, as the teacher sees them.")
    contrastive: Weight = Field(0.0, description="Images to their own captions, and captions to their own images.")

    @property
    def told(self) -> str:
        """Those that count, in words: `features 1, hidden 0.5`."""
        return ", ".join(f"{name} {weight:g}" for name, weight in self.model_dump().items() if weight)


class Training(StepSpec):
    """Options of every training step. `include` and `exclude` choose weights; all of a tower if nothing is said."""

    losses: Losses = Field(Losses(), description="weight of each loss", validate_default=True)
    steps: PositiveInt | None = Field(None, description="optimizer steps")
    epochs: PositiveNumber | None = Field(None, description="times that all samples are seen")
    seconds: PositiveNumber | None = Field(
        None, description="time to train; where it ends depends on the machine", validate_default=True
    )
    start: Literal["inherited", "random"] = Field(
        "inherited", description="inherited: from the weights that are there; random: from new ones of the same shapes"
    )
    batch: PositiveInt = Field(64, description="samples of a step, over all processes")
    optimizer: Optimizers = Field(
        "adamw", description="adamw, or soap: Adam in the eigenbases of the gradients, for short trainings"
    )
    rate: PositiveNumber = Field(1e-3, description="highest learning rate")
    warmup: Share = Field(0.05, description="share of the training in which the rate rises; then it falls as a cosine")
    weight_decay: Weight = Field(0.01, description="of matrices; vectors are not decayed")
    accumulate: PositiveInt = Field(1, description="parts that a process does its share of a step in, to save memory")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision; no: float32")
    teacher: Where = Field(
        "auto",
        description="where the teacher runs: child: on the CPU, in a process of its own; device: where the student "
        "trains; sharded: its weights cut over all processes' devices; auto: child on a CPU, else what fits",
    )
    temperature: PositiveNumber | None = Field(
        None, description="of the student in the bank loss, twice the teacher's; 2 / logit scale if not given"
    )
    bank_size: PositiveInt = Field(1024, description="embeddings in the bank")
    held_out: Share = Field(0.05, description="share of the samples that only watch, at most 512")
    watch: Literal["held_out", "gates"] = Field(
        "held_out",
        description="what is looked at: the loss on held-out samples, or the policy's gates on development data",
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="looks without a better value before training ends; 0: never before its time"
    )
    tracker: Literal["none", "tensorboard", "mlflow"] = Field(
        "none", description="where curves are sent as well, while it trains"
    )
    checkpoint_minutes: PositiveNumber = Field(5.0, description="minutes between two checkpoints")

    @field_validator("losses")
    @classmethod
    def _some(cls, losses: Losses) -> Losses:
        if not any(losses.model_dump().values()):
            raise ValueError("every loss has weight 0, so there is nothing to train towards")
        return losses

    @field_validator("seconds")
    @classmethod
    def _one_budget(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        given = [name for name in ("steps", "epochs") if info.data.get(name) is not None]
        if len(given) + (seconds is not None) > 1:
            raise ValueError("give one of steps, epochs, seconds")
        return seconds


EPOCHS = 10.0
"""How long to train where nothing is said."""
