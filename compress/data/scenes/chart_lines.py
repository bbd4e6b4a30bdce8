"""A line over bars with a number at each: what is the line at B, and which of the two is higher there?"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.canvas import Colour
from compress.data.scenes.scene import SIZE, Scene, pick, split_of
from compress.data.scenes.shapes import HUES, shade

ASKS: Final = ("line_value", "order", "bar_value", "order")
VALUE: Final = "at {} the {} is {}"
HIGHER: Final = "at {} the {} is above the {}"
_CATEGORIES: Final = "ABCDEFGH"
_FACE: Final = ("DejaVuSans", 8)
_NUMBER: Final = 3
_BASE: Final = 52  # the row on which bars stand; category letters stand below
_PITCH: Final = 21
_WRONG: Final = 5
_GAP: Final = 12

RANGE: Final = range(30, 100)
"""Of all values, those of wrong captions as well: what is printed must decide, not what is likely."""

Points = list[tuple[int, int]]


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One chart of three categories, bars of one colour and a line of another."""
    asks = ASKS[index % len(ASKS)]
    while True:
        first = int(rng.integers(len(_CATEGORIES) - _NUMBER + 1))
        categories, series = _CATEGORIES[first : first + _NUMBER], _series(rng, split)
        values = [_values(rng, split, categories, name) for name in series]
        gaps = [abs(a - b) for a, b in zip(*values, strict=False)]
        if len(gaps) == _NUMBER and min(gaps) >= _GAP:  # numbers stay out of each other's way
            break
    image = _drawn(rng, categories, series, values)
    at = int(rng.integers(_NUMBER))
    if asks == "order":
        high, low = series if values[0][at] > values[1][at] else series[::-1]
        true, other = (HIGHER.format(categories[at], *pair) for pair in ((high, low), (low, high)))
        wrong: tuple[str, ...] = (other,)
    else:
        asked = ("bar_value", "line_value").index(asks)
        seen = [value for told in values for value in told]
        true, wrong = _value(rng, split, (categories[at], series[asked]), values[asked][at], seen)
    return Scene(canvas.wear(rng, canvas.finish(image)), true, wrong, {"asks": asks})


def _series(rng: np.random.Generator, split: str) -> tuple[str, str]:
    """The bars and the line; the pair of colours, whichever is which, belongs to the split."""
    while True:
        colours = [str(colour) for colour in rng.permutation(list(HUES))[:2]]
        if split_of("bars:" + " ".join(sorted(colours))) == split:
            return f"{colours[0]} bar", f"{colours[1]} line"


def _values(rng: np.random.Generator, split: str, categories: str, series: str) -> list[int]:
    """A value a category, each told with its series belonging to the split; fewer where there is hardly any."""
    pools = [_pool(each, series, split) for each in categories]
    return [int(pick(rng, pool)) for pool in pools if len(pool) > 1]


@cache
def _pool(category: str, series: str, split: str) -> tuple[int, ...]:
    """The values that belong to the split."""
    return tuple(value for value in RANGE if _belongs(VALUE.format(category, series, value), split))


def _belongs(text: str, split: str) -> bool:
    return split_of("chart line:" + text) == split


def _value(
    rng: np.random.Generator, split: str, about: tuple[str, str], value: int, seen: list[int]
) -> tuple[str, tuple[str, ...]]:
    """The true statement, and wrong ones: first the other numbers in the chart, then numbers one digit away."""
    near = [other for other in RANGE if (other // 10 == value // 10) != (other % 10 == value % 10)]
    near = [near[at] for at in rng.permutation(len(near))]
    far = [int(other) for other in rng.permutation(list(RANGE))]  # a small split may hold no near value
    told = [VALUE.format(*about, other) for other in dict.fromkeys([*seen, *near, *far]) if other != value]
    return VALUE.format(*about, value), tuple(text for text in told if _belongs(text, split))[:_WRONG]


def _drawn(
    rng: np.random.Generator, categories: str, series: tuple[str, str], values: list[list[int]]
) -> NDArray[np.float32]:
    level = int(rng.integers(232, 256))
    image = canvas.background(rng, (level, level, level))
    colours = [shade(rng, name.split()[0]) for name in series]
    tops, points = ([(_left(at) + 8, _height(value)) for at, value in enumerate(each)] for each in values)
    bars, line = (Image.new("L", (SIZE, SIZE)) for _ in range(2))
    for x, y in tops:
        ImageDraw.Draw(bars).rectangle((x - 7, y, x + 7, _BASE), fill=255)
    canvas.paint(image, bars, colours[0])
    pen = ImageDraw.Draw(line)
    pen.line(points, fill=255, width=2)
    for x, y in points:
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=255)
    canvas.paint(image, line, colours[1])
    for at, category in enumerate(categories):
        canvas.draw_text(image, category, _FACE, (_left(at) + 5, _BASE + 2), (20, 20, 20))
        _label(image, str(values[0][at]), (tops[at][0], _BASE - 11), None)
        _label(image, str(values[1][at]), (points[at][0], _above(points[at][1])), (level, level, level))
    return image


def _left(at: int) -> int:
    return 1 + at * _PITCH


def _height(value: int) -> int:
    return _BASE - round(value * 0.44)


def _above(y: int) -> int:
    """Where a label of the line stands: over its point, or under it where the image ends."""
    return y - 12 if y >= 12 else y + 3


def _label(image: NDArray[np.float32], text: str, at: tuple[int, int], plate: Colour | None) -> None:
    """A number centred at x, on a plate of its own where lines may cross it, else white or black on its bar."""
    wide = canvas.text_width(text, *_FACE)
    left = round(at[0] - wide / 2)
    if plate is not None:
        mask = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(mask).rectangle((left - 1, at[1] + 1, left + round(wide), at[1] + 8), fill=255)
        canvas.paint(image, mask, plate)
    ground = image[min(at[1] + 9, SIZE - 1), max(left - 1, 0)]
    dark = plate is not None or canvas.luma(ground.astype(np.int64)) > 120
    canvas.draw_text(image, text, _FACE, (left, at[1]), (20, 20, 20) if dark else (250, 250, 250))
