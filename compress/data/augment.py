"""Augmentation by a seed: the same seed gives the same pixels, so what a teacher says of them can be kept.

Dataset reinforcement (MobileCLIP, 2311.17049) stores the same: with a sample's seed and the teacher's embedding an
epoch needs no teacher.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageEnhance

from compress.recipe.training import Augment

_LIGHT = 0.3  # brightness, contrast and saturation change by up to so much
_QUALITY = (40, 95)
_AREA = (0.5, 1.0)
_RATIO = (3 / 4, 4 / 3)


def seed_of(seed: int, key: int) -> tuple[int, int, int]:
    """The seed of one view of one sample, which its key names."""
    return (0xA06, seed, key)


def augmented(image: Image.Image, how: Augment, seed: tuple[int, ...]) -> Image.Image:
    """A view of an RGB image.

    `photo` changes light, goes through JPEG and cuts a tenth off the sides; nothing is mirrored, so text stays text.
    `crop` takes a part of 50 to 100 % of the area, mirrored in half of the cases, and does the same to it.
    """
    if how == "none":
        return image
    rng = np.random.default_rng(seed)
    cut = _part(image, rng) if how == "crop" else _shifted(image, rng)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        cut = change(cut).enhance(1 + float(rng.uniform(-_LIGHT, _LIGHT)))
    if rng.random() < 0.5:
        return cut
    held = io.BytesIO()
    cut.save(held, "JPEG", quality=int(rng.integers(*_QUALITY)))
    return Image.open(held).convert("RGB")


def _part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    area = image.width * image.height * rng.uniform(*_AREA)
    ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1]))) * image.width / image.height
    wide = min(image.width, max(1.0, math.sqrt(area * ratio)))
    high = min(image.height, max(1.0, area / wide))
    left, top = rng.uniform(0, image.width - wide), rng.uniform(0, image.height - high)
    cut = image.resize(image.size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut


def _shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    kept = 0.9
    wide, high = kept * image.width, kept * image.height
    left, top = rng.uniform(0, image.width - wide), rng.uniform(0, image.height - high)
    return image.resize(image.size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
