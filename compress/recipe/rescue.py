"""What a recipe says about being saved: how much more a candidate may cost than was planned, if its gates fail."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from compress.recipe.fields import PositiveNumber, Strict


class Rescue(Strict):
    """The budget of a rescue: ratios to the float reference. At least one of them bounds it."""

    max_size_ratio: PositiveNumber | None = Field(None, description="Bytes of all model files, over the reference's.")
    max_latency_ratio: PositiveNumber | None = Field(
        None, description="Time of the slower tower, over the reference's.", validate_default=True
    )

    @field_validator("max_latency_ratio")
    @classmethod
    def _some_budget(cls, latency: float | None, info: ValidationInfo) -> float | None:
        if latency is None and info.data.get("max_size_ratio", "") is None:
            raise ValueError("give max_size_ratio, max_latency_ratio or both: a rescue without a budget ends in float")
        return latency
