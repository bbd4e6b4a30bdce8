"""A page full of short codes: no question to answer, but many characters whose places are known."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.codes import sample_code
from compress.data.scenes.scene import SIZE, Mark, Scene, pick, stream

CAPTION: Final = "a picture of text"


def render(rng: np.random.Generator, split: str, index: int) -> Scene:  # noqa: ARG001  (every kind has one signature)
    """Lines of codes in one font, size and colour, as many as fit; a quarter of the pages is turned a little."""
    face = (pick(rng, canvas.FONTS), int(rng.choice((6, 7, 8, 9, 10, 11, 12, 14, 16, 19, 22))))
    angle = float(rng.uniform(-12, 12)) if rng.random() < 0.25 else 0.0
    low, high = (32.0, 90.0) if rng.random() < 0.25 else (90.0, 255.0)
    fore, back = canvas.colour_pair(rng, low, high)
    image = canvas.background(rng, back)
    used = canvas.font(*face)
    pitch = sum(used.getmetrics()) + int(rng.integers(0, 4))
    mask = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(mask)
    boxes: list[tuple[str, int, float, float, float, float]] = []
    y = int(rng.integers(-2, 5))
    while y < SIZE - face[1]:
        x, words = int(rng.integers(-2, 6)), _line(rng, split, face)
        pen.text((x, y), " ".join(words), font=used, fill=255)
        left = float(x)
        for word in words:
            edges = _edges(word, face)
            spans = zip(word, edges, edges[1:], strict=False)
            boxes += [
                (char, place, left + a, float(y), left + b, float(y + pitch))
                for place, (char, a, b) in enumerate(spans, 1)
                if left + a < SIZE
            ]
            left += edges[-1] + _edges(" ", face)[-1]
        y += pitch
    middle = (SIZE / 2, SIZE / 2)
    if angle:
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, center=middle)
    canvas.paint(image, mask, fore)
    marks = []
    for char, place, a, t, b, c in boxes:
        corners = ((a, t), (b, t), (b, c), (a, c))
        turned = tuple(canvas.turned(corner, middle, angle) for corner in corners) if angle else corners
        marks.append(Mark("char", char, turned, place))
    return Scene(canvas.wear(rng, canvas.finish(image)), CAPTION, (), {}, tuple(marks))


def _line(rng: np.random.Generator, split: str, face: tuple[str, int]) -> list[str]:
    pool, space = _words(split), _edges(" ", face)[-1]
    words: list[str] = []
    wide = 0.0
    while wide < SIZE:
        for at in rng.integers(len(pool), size=4):
            words.append(pool[at])
            wide += _edges(pool[at], face)[-1] + space
    return words


@cache
def _edges(word: str, face: tuple[str, int]) -> tuple[float, ...]:
    """Where each character of a word starts and the last one ends, from the start of the word, in pixels."""
    used = canvas.font(*face)
    return tuple(float(used.getlength(word[:end])) for end in range(len(word) + 1))


@cache
def _words(split: str) -> tuple[str, ...]:
    """Codes of the split to fill pages with: drawn once: drawing and measuring them costs more than printing."""
    rng = stream("words", split, 0, 0)
    return tuple(sample_code(rng, split, int(rng.integers(1, 5))) for _ in range(1 << 11))
