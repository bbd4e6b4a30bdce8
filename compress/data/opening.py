"""From an image file to RGB pixels: one rule for every container, so that one picture has one embedding."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, ImageOps

from compress.core.errors import UsageError

PAPER: Final = (255, 255, 255, 255)
"""What shows through where a picture is transparent: white, as on paper and on most pages."""

_WIDE: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_STEP: Final = 257  # 65535 / 255: a byte repeated, as formats write an 8-bit value in 16 bits
_BROKEN: Final = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for files that are cut off, empty, no images, or larger than anything that fits in memory."""


def read(file: Path | BinaryIO, where: str) -> Image.Image:
    """The picture in a file as RGB; of several frames the first. Raises UsageError where it cannot be read whole."""
    try:
        with Image.open(file) as image:
            return rgb(image)
    except _BROKEN as error:
        raise UsageError(
            f"is no image that can be read: {error}", where, "replace the file, or leave it out of the labels"
        ) from error


def rgb(image: Image.Image) -> Image.Image:
    """A picture as RGB: turned upright as EXIF says, 16 bits scaled to 8, transparency laid on PAPER.

    CMYK is converted without colour profiles. Raises UsageError for floating-point and 32-bit pixels, whose range
    nobody knows.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _WIDE:
        return _from_16_bits(upright)
    if upright.mode == "F":
        raise UsageError("floating-point pixels have no known range", hint="store the image in 8 or 16 bits")
    if upright.has_transparency_data:
        above = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, PAPER), above).convert("RGB")
    return upright.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 255 * _STEP:
        raise UsageError("32-bit pixels have no known range", hint="store the image in 8 or 16 bits")
    return Image.fromarray(((values + _STEP // 2) // _STEP).astype(np.uint8)).convert("RGB")
