"""An object, the same object seen again, and its near twin: which of the two is it? No text is needed."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.canvas import Colour
from compress.data.scenes.codes import sample_code
from compress.data.scenes.scene import SIZE, Scene, pick, split_of

DIFFERENCES: Final = ("dot", "corner", "notch", "hue", "digit")
PARTS: Final = ("query", "same", "twin")
"""Three images of an item: one object seen twice, and its twin in the place of the second view."""

VIEWS: Final = len(PARTS)
CAPTION: Final = "a picture"
HUE_STEP: Final = (25.0, 45.0)  # degrees
SHIFT: Final = 3  # pixels, between the query and the other two
_FINE: Final = 4  # drawn at four times the size and reduced, for smooth edges
_ROWS: Final = 5


@dataclass(frozen=True, slots=True)
class Tile:
    """A coloured tile with round holes: `dot` adds a mark, `corner` takes a corner off, `notch` bites into an edge."""

    side: int
    hue: float
    holes: tuple[tuple[float, float], ...]
    place: int
    level: int
    dot: bool = False
    corner: bool = False
    notch: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """Lines of a short name and an amount."""

    lines: tuple[tuple[str, str], ...]
    pixels: int


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One image of an item: `rng` is the item's, and is the same for its three images, which follow each other."""
    part = PARTS[index % VIEWS]
    difference = DIFFERENCES[index // VIEWS % len(DIFFERENCES)]
    pair = _receipts(rng, split) if difference == "digit" else _tiles(rng, difference)
    own, twin = pair if rng.random() < 0.5 else pair[::-1]
    seen_from = [tuple(int(step) for step in rng.integers(-SHIFT, SHIFT + 1, 2)) for _ in range(2)]
    view = rng.spawn(VIEWS)[index % VIEWS]
    at = seen_from[0] if part == "query" else seen_from[1]
    shown = twin if part == "twin" else own
    image = _receipt(shown, at) if isinstance(shown, Receipt) else _tile(shown, at)
    image += view.normal(0, view.uniform(2, 6), image.shape).astype(np.float32)
    image *= view.uniform(0.96, 1.04)
    return Scene(canvas.finish(image), CAPTION, (), {"difference": difference, "part": part})


def _tiles(rng: np.random.Generator, difference: str) -> tuple[Tile, Tile]:
    cells = rng.permutation(4)[: int(rng.integers(1, 3))]
    holes = tuple((0.3 + 0.4 * float(cell % 2), 0.3 + 0.4 * float(cell // 2)) for cell in cells)
    tile = Tile(int(rng.integers(36, 49)), float(rng.uniform(0, 360)), holes, int(rng.integers(4)), _level(rng))
    if difference == "hue":
        return tile, replace(tile, hue=tile.hue + float(rng.uniform(*HUE_STEP)) * pick(rng, (-1, 1)))
    return tile, replace(tile, dot=difference == "dot", corner=difference == "corner", notch=difference == "notch")


def _level(rng: np.random.Generator) -> int:
    return int(pick(rng, (rng.integers(20, 70), rng.integers(200, 246))))


def _tile(tile: Tile, at: tuple[int, ...]) -> NDArray[np.float32]:
    image = np.full((SIZE, SIZE, 3), tile.level, np.float32)
    end = tile.side * _FINE - 1
    mask = Image.new("L", (end + 1, end + 1))
    pen = ImageDraw.Draw(mask)
    cut = end * (0.2 if tile.corner else 0.0)
    pen.polygon([(cut, 0), (end, 0), (end, end), (0, end), (0, cut)], fill=255)
    if tile.notch:
        pen.polygon([(end * 0.38, end), (end * 0.5, end * 0.82), (end * 0.62, end)], fill=0)
    for x, y in tile.holes:
        _disc(pen, x * end, y * end, 0.1 * end, 0)
    if tile.dot:
        _disc(pen, end * 0.5, end * 0.5, 0.06 * end, 0)
    mask = mask.rotate(90 * tile.place)
    placed = Image.new("L", (SIZE, SIZE))
    left, top = ((SIZE - tile.side) // 2 + step for step in at)
    placed.paste(mask.resize((tile.side, tile.side), Image.Resampling.BOX), (left, top))
    canvas.paint(image, placed, _hue(tile.hue))
    return image


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: int) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _hue(degrees: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(math.fmod(degrees, 360) / 360 % 1, 0.8, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _receipts(rng: np.random.Generator, split: str) -> tuple[Receipt, Receipt]:
    """Two receipts with one digit changed; all names and amounts, the changed one as well, belong to the split."""
    lines = tuple((sample_code(rng, split, 2), _amount(rng, split)) for _ in range(_ROWS))
    row = int(rng.integers(_ROWS))
    name, amount = lines[row]
    others = [
        other
        for place in (0, 1, 3, 4)
        for digit in "0123456789"
        if (other := amount[:place] + digit + amount[place + 1 :]) != amount and _belongs(other, split)
    ]
    if not others:  # the small calibration split may hold no neighbour
        return _receipts(rng, split)
    changed = (*lines[:row], (name, pick(rng, others)), *lines[row + 1 :])
    pixels = int(rng.integers(9, 11))
    return Receipt(lines, pixels), Receipt(changed, pixels)


def _belongs(amount: str, split: str) -> bool:
    return amount[0] != "0" and split_of("amount:" + amount) == split


def _amount(rng: np.random.Generator, split: str) -> str:
    while True:
        amount = f"{int(rng.integers(10, 100))}.{int(rng.integers(100)):02d}"
        if _belongs(amount, split):
            return amount


def _receipt(receipt: Receipt, at: tuple[int, ...]) -> NDArray[np.float32]:
    image = np.full((SIZE, SIZE, 3), 245, np.float32)
    face = ("DejaVuSansMono", receipt.pixels)
    for row, (name, amount) in enumerate(receipt.lines):
        top = 2 + SHIFT + row * 11 + at[1] // 2
        canvas.draw_text(image, name, face, (SHIFT + at[0] // 2, top), (30, 30, 30))
        canvas.draw_text(image, amount, face, (27 + at[0] // 2, top), (30, 30, 30))
    return image
