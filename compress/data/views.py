"""Another view of the same picture, as somebody who searches with a photo would bring it."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

KEPT: Final = 0.9
"""Share of each side that a view keeps."""

_QUALITY: Final = 75


def view(image: Image.Image, seed: int) -> Image.Image:
    """The image, a tenth of each side cut off somewhere, brought back to its size, through JPEG. RGB."""
    wide, high = (max(1, round(KEPT * side)) for side in image.size)
    rng = np.random.default_rng(seed)
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - wide, image.height - high))
    cut = image.convert("RGB").resize(image.size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
    held = io.BytesIO()
    cut.save(held, "JPEG", quality=_QUALITY)
    return Image.open(held).convert("RGB")
