"""The vision tower of CLIP (arXiv:2103.00020) alone, with its projection: `CLIPVisionModelWithProjection`."""

from __future__ import annotations

from typing import Final

from compress.models.families import clip
from compress.models.families.family import Family

FAMILY: Final = Family(
    architectures=("CLIPVisionModelWithProjection",), towers={"vision": clip.FAMILY.towers["vision"]}
)
