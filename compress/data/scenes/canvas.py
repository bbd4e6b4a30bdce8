"""Drawing: fonts, colours, backgrounds, rotated text with the box of every glyph, and image wear."""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from compress.data.scenes.scene import SIZE, Mark, pick

FONTS: Final = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
"""Free fonts that matplotlib carries in its wheel, so nothing has to be downloaded or copied."""

Colour = tuple[int, int, int]
_LUMA: Final = np.array([0.299, 0.587, 0.114])


@cache
def _font_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")  # found, not imported: importing it costs half a second
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("matplotlib, whose fonts the rendered scenes use, is not installed")
    return Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at `size` pixels per em, laid out without optional engines: pixels do not depend on what is installed."""
    return ImageFont.truetype(str(_font_folder() / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


def luma(colour: Sequence[int] | NDArray[np.int64]) -> float:
    """Rec. 601 luma, 0 to 255."""
    return float(np.dot(_LUMA, colour))


def colour_pair(rng: np.random.Generator, low: float, high: float) -> tuple[Colour, Colour]:
    """A foreground and a background colour whose lumas differ by between `low` and `high`."""
    while True:
        fore, back = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        if rng.random() < 0.6:  # print is mostly dark on light or light on dark, and grey
            fore[:], back[:] = rng.integers(0, 256), rng.integers(0, 256)
        if low <= abs(luma(fore) - luma(back)) <= high:
            return _colour(fore), _colour(back)


def _colour(values: NDArray[np.int64]) -> Colour:
    return int(values[0]), int(values[1]), int(values[2])


def background(rng: np.random.Generator, colour: Colour) -> NDArray[np.float32]:
    """A SIZE x SIZE x 3 background: flat, or with a gentle gradient, or with paper-like noise."""
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = colour
    style = rng.random()
    if style < 0.3:
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
        slope = math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]
        canvas += (rng.uniform(4, 16) * slope)[:, :, None]
    elif style < 0.6:
        canvas += rng.normal(0, rng.uniform(1, 5), (SIZE, SIZE, 1)).astype(np.float32)
    return canvas


def paint(canvas: NDArray[np.float32], mask: Image.Image, colour: Colour) -> None:
    """Blend a colour into the canvas, in place, where the mask (8-bit) says so."""
    alpha = np.asarray(mask, np.float32)[:, :, None] / 255
    canvas += alpha * (np.array(colour, np.float32) - canvas)


def text_width(text: str, name: str, size: int) -> float:
    """Advance width of a text in pixels."""
    return float(font(name, size).getlength(text))


def draw_text(
    canvas: NDArray[np.float32],
    text: str,
    face: tuple[str, int],
    at: tuple[int, int],
    colour: Colour,
    angle: float = 0.0,
) -> tuple[Mark, ...]:
    """Draw a text with its top left at `at`, turned by `angle` degrees about its middle; returns a mark per glyph."""
    used = font(*face)
    ascent, descent = used.getmetrics()
    x, y = at
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).text((x, y), text, font=used, fill=255)
    edges = [x + used.getlength(text[:end]) for end in range(len(text) + 1)]
    middle = ((edges[0] + edges[-1]) / 2, y + (ascent + descent) / 2)
    if angle:
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, center=middle)
    paint(canvas, mask, colour)
    top, bottom = float(y), float(y + ascent + descent)
    boxes = [((a, top), (b, top), (b, bottom), (a, bottom)) for a, b in itertools.pairwise(edges)]
    return tuple(
        Mark("char", char, tuple(turned(corner, middle, angle) for corner in box), place)
        for place, (char, box) in enumerate(zip(text, boxes, strict=True), 1)
    )


def turned(point: tuple[float, float], middle: tuple[float, float], angle: float) -> tuple[float, float]:
    """A point turned by `angle` degrees counter-clockwise about `middle`, in image coordinates (y grows downwards)."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    dx, dy = point[0] - middle[0], point[1] - middle[1]
    return middle[0] + cosine * dx + sine * dy, middle[1] - sine * dx + cosine * dy


def finish(canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The canvas as an 8-bit image."""
    made: NDArray[np.uint8] = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return made


def wear(rng: np.random.Generator, image: NDArray[np.uint8], chance: float = 0.3) -> NDArray[np.uint8]:
    """With the given chance, what happens to images in the wild: a slight blur, JPEG, or sensor noise."""
    if rng.random() >= chance:
        return image
    kind = pick(rng, ("blur", "jpeg", "noise"))
    if kind == "blur":
        soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.7)))
        return np.asarray(soft)
    if kind == "jpeg":
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG", quality=int(rng.integers(50, 95)))
        return np.asarray(Image.open(held).convert("RGB"))
    return finish(image.astype(np.float32) + rng.normal(0, rng.uniform(2, 8), image.shape).astype(np.float32))
