"""A short code somewhere in the image: which of sixteen look-alike codes does it say?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from compress.data.scenes import canvas
from compress.data.scenes.codes import LOOK_ALIKE_CLASSES, look_alikes, sample_code
from compress.data.scenes.scene import SIZE, Scene, pick

CANDIDATES: Final = 16
SIZES: Final = {"6-8": (6, 8), "9-12": (9, 12), "13-18": (13, 18), "19-24": (19, 24)}
"""Text height slices: font size in pixels per em, as CSS counts; capitals stand about 0.72 of it."""

CONDITIONS: Final = ("plain", "plain", "low_contrast", "rotated")
PROMPT: Final = "the text {}"


@dataclass(frozen=True, slots=True)
class Print:
    """How a code is printed: font and size in pixels, difference in luma, degrees of rotation, on the patch grid."""

    face: tuple[str, int]
    contrast: tuple[float, float]
    angle: float = 0.0
    aligned: bool = False
    worn: float = 0.3


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One reading item. Sizes, conditions and look-alike classes take turns, so that every slice gets its share."""
    sizes, classes = tuple(SIZES), (*LOOK_ALIKE_CLASSES, "")
    size = sizes[index % len(sizes)]
    condition = CONDITIONS[index // len(sizes) % len(CONDITIONS)]
    group = classes[index // (len(sizes) * len(CONDITIONS)) % len(classes)]
    low, high = SIZES[size]
    pixels = int(rng.integers(low, high + 1))
    angle = float(rng.uniform(4, 12) * pick(rng, (-1, 1))) if condition == "rotated" else 0.0
    contrast = (32.0, 56.0) if condition == "low_contrast" else (90.0, 255.0)
    while True:
        code = sample_code(rng, split, int(rng.integers(2, 5)), including=group)
        how = Print((pick(rng, canvas.FONTS), pixels), contrast, angle)
        if fits(code, how):
            break
    negatives = look_alikes(rng, code, CANDIDATES - 1)
    slices = {"size": size, "condition": condition, "look_alike": group or "none"}
    return draw(rng, code, how, negatives, slices)


def fits(code: str, how: Print) -> bool:
    """Whether the code stands inside the image when printed so."""
    width, height = _extent(code, how)
    return width <= SIZE - 2 and height <= SIZE - 2


def _extent(code: str, how: Print) -> tuple[float, float]:
    width = canvas.text_width(code, *how.face)
    height = sum(canvas.font(*how.face).getmetrics())
    lean = abs(np.sin(np.radians(how.angle)))
    return width + lean * height, height + lean * width


def draw(rng: np.random.Generator, code: str, how: Print, negatives: tuple[str, ...], slices: dict[str, str]) -> Scene:
    """The scene of one code printed in one way at a random place."""
    fore, back = canvas.colour_pair(rng, *how.contrast)
    image = canvas.background(rng, back)
    wide, high = _extent(code, how)
    plain = canvas.text_width(code, *how.face), sum(canvas.font(*how.face).getmetrics())
    left = (wide - plain[0]) / 2 + rng.uniform(0, SIZE - wide)
    top = (high - plain[1]) / 2 + rng.uniform(0, SIZE - high)
    if how.aligned:
        left, top = left // 8 * 8, top // 8 * 8
    marks = canvas.draw_text(image, code, how.face, (int(left), int(top)), fore, how.angle)
    return Scene(
        image=canvas.wear(rng, canvas.finish(image), how.worn),
        caption=PROMPT.format(code),
        negatives=tuple(PROMPT.format(other) for other in negatives),
        slices=slices,
        marks=marks,
    )
