"""What a recipe says of the data that its distill steps train on: `training:` below `data:`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compress.recipe.fields import PositiveInt, Strict

Use = Literal["images", "captions", "pairs"]
Augment = Literal["none", "photo", "crop"]
Share = Annotated[float, Field(ge=0, lt=1)]
Pixels = Literal["6-8", "9-12", "13-18", "19-24"]


class Feeding(Strict):
    """How training data become batches."""

    use: Use | None = Field(None, description="images, captions or pairs; what the data have if not given.")
    streaming: bool = Field(False, description="Read in passing, for what does not fit into memory.")
    rendered: Share = Field(0.25, description="Share of every batch that is rendered text; 0 for none.")
    rendered_px: Annotated[tuple[Pixels, ...], Field(strict=False, min_length=1)] = Field(
        ("6-8", "9-12", "13-18", "19-24"), description="Heights of rendered text, in pixels; they take turns."
    )
    augment: Augment = Field("none", description="none, photo (light and wear, no mirror), or crop (and mirrored).")
    views: PositiveInt = Field(1, description="Augmentations of each sample; epochs take turns with them.")
    workers: int | None = Field(None, ge=0, le=256, description="Processes that decode; 0: none but this one.")
    broken: int = Field(16, ge=0, description="Images that cannot be read before the run ends.")

    @field_validator("rendered_px")
    @classmethod
    def _distinct(cls, sizes: tuple[Pixels, ...]) -> tuple[Pixels, ...]:
        if len(set(sizes)) < len(sizes):
            raise ValueError("names something twice, which would be the same texts")
        return sizes
