"""A small bar chart with a value over each bar: what is the value of the red bar, and which bar is highest?"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.scene import SIZE, Mark, Scene, split_of
from compress.data.scenes.shapes import HUES, shade

VALUE: Final = "the {} bar is {}"
HIGHEST: Final = "the {} bar is above the {} bar"


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One chart of two or three bars. Half of the items ask for a value, half for the order of two bars."""
    asks = ("value", "order")[index % 2]
    number = int(rng.integers(2, 4))
    colours = _colours(rng, split, number)
    values = _values(rng, split, colours)
    pixels = int(rng.integers(8, 12))
    level = int(rng.integers(225, 256))
    image = canvas.background(rng, (level, level, level))
    marks: list[Mark] = []
    width, pitch, base = int(rng.integers(9, 15)), 60 // number, 62
    scale = 44 / max(values)
    for place, (colour, value) in enumerate(zip(colours, values, strict=True)):
        left = 2 + place * pitch + (pitch - width) // 2
        height = max(2, round(value * scale))
        mask = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(mask).rectangle((left, base - height, left + width - 1, base), fill=255)
        canvas.paint(image, mask, shade(rng, colour))
        x, y = left, base - height
        marks.append(Mark("shape", f"{colour} bar", ((x, y), (x + width, y), (x + width, base), (x, base))))
        face = ("DejaVuSans", pixels)
        middle = left + width / 2 - canvas.text_width(str(value), *face) / 2
        marks += canvas.draw_text(image, str(value), face, (round(middle), y - pixels - 2), (20, 20, 20))
    true, wrong = _value(rng, split, colours, values) if asks == "value" else _order(rng, colours, values)
    return Scene(canvas.wear(rng, canvas.finish(image)), true, wrong, {"asks": asks}, tuple(marks))


def _colours(rng: np.random.Generator, split: str, number: int) -> list[str]:
    """Bar colours; the first two, whose order may be asked for, are a pair of the split."""
    while True:
        colours = [str(colour) for colour in rng.permutation(list(HUES))[:number]]
        if split_of("bars:" + " ".join(sorted(colours[:2]))) == split:
            return colours


def _values(rng: np.random.Generator, split: str, colours: list[str]) -> list[int]:
    """A two-digit value a bar, at least three apart, each told with its colour belonging to the split."""
    while True:
        values = [int(rng.integers(10, 100)) for _ in colours]
        gaps = np.diff(sorted(values))
        if gaps.min() >= 3 and all(
            split_of("bar:" + VALUE.format(*told)) == split for told in zip(colours, values, strict=True)
        ):
            return values


def _value(rng: np.random.Generator, split: str, colours: list[str], values: list[int]) -> tuple[str, tuple[str, ...]]:
    asked = int(rng.integers(len(colours)))
    colour, value = colours[asked], values[asked]
    told = [text for other in values if (text := VALUE.format(colour, other)) and other != value]
    told = [text for text in told if split_of("bar:" + text) == split]
    near = [tens * 10 + ones for tens in range(1, 10) for ones in range(10)]
    near = [other for other in near if (other // 10 == value // 10) != (other % 10 == value % 10)]
    for at in rng.permutation(len(near)):
        text = VALUE.format(colour, near[at])
        if text not in told and split_of("bar:" + text) == split:
            told.append(text)
    if not told:  # a small split may hold no near value
        others = [VALUE.format(colour, other) for other in range(10, 100) if other != value]
        told = [text for text in others if split_of("bar:" + text) == split]
    return VALUE.format(colour, value), tuple(told[:5])


def _order(rng: np.random.Generator, colours: list[str], values: list[int]) -> tuple[str, tuple[str, ...]]:
    a, b = 0, 1
    if rng.random() < 0.5:
        a, b = b, a
    texts = HIGHEST.format(colours[a], colours[b]), HIGHEST.format(colours[b], colours[a])
    return (texts[0], texts[1:]) if values[a] > values[b] else (texts[1], texts[:1])
