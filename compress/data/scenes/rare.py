"""The tail: rare names of colours and shapes, shapes seldom drawn, and words that nobody has read, beside the head."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.codes import look_alikes, sample_code
from compress.data.scenes.reading import Print, draw, fits
from compress.data.scenes.scene import SIZE, Scene, pick, split_of
from compress.data.scenes.shapes import HUES, SHAPES, TEMPLATES, draw_shape, grey_background, shade

CANDIDATES: Final = 8
PARTS: Final = ("head_class", "rare_name", "rare_shape", "head_word", "rare_word")
"""Head: the classes of `shapes` and the codes of `reading`. Tail: everything else."""

RARE_NAMES: Final = {
    "red": "scarlet", "orange": "amber", "yellow": "saffron", "green": "emerald", "cyan": "turquoise",
    "blue": "cobalt", "purple": "violet", "pink": "fuchsia", "square": "tetragon", "circle": "disc",
    "triangle": "trigon", "diamond": "rhombus", "star": "pentagram", "cross": "plus",
}  # fmt: skip
"""A name that texts use seldom for what `shapes` draws."""

RARE_SHAPES: Final = ("hexagon", "arrow", "chevron", "trapezoid", "ring", "crescent")
_OUTLINES: Final = {
    "hexagon": ((0.25, 0.07), (0.75, 0.07), (1, 0.5), (0.75, 0.93), (0.25, 0.93), (0, 0.5)),
    "arrow": ((0, 0.35), (0.5, 0.35), (0.5, 0.08), (1, 0.5), (0.5, 0.92), (0.5, 0.65), (0, 0.65)),
    "chevron": ((0, 0.3), (0.5, 0), (1, 0.3), (1, 0.9), (0.5, 0.6), (0, 0.9)),
    "trapezoid": ((0.25, 0.15), (0.75, 0.15), (1, 0.85), (0, 0.85)),
}  # fmt: skip
VOWELS: Final = "AEIOU"
CONSONANTS: Final = "BCDFGHJKLMNPRSTVWXZ"
_PATTERNS: Final = ("CVCVC", "CVCCV", "CVCVCV", "CVCCVC", "VCCVCV", "CVCVCVC")
_FINE: Final = 4  # drawn at four times the size and reduced, for smooth edges


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One item. The parts of head and tail take turns."""
    part = PARTS[index % len(PARTS)]
    slices = {"part": part, "tail": "head" if part.startswith("head") else "tail"}
    if part == "head_word":
        return _read(rng, sample_code(rng, split, int(rng.integers(2, 5))), slices)
    if part == "rare_word":
        return _read(rng, sample_word(rng, split), slices)
    return _class(rng, split, slices)


def _class(rng: np.random.Generator, split: str, slices: dict[str, str]) -> Scene:
    """One shape; wrong are classes of the same colour or of the same shape."""
    part = slices["part"]
    shapes = RARE_SHAPES if part == "rare_shape" else SHAPES
    colour, shape = pick(rng, tuple(HUES)), pick(rng, shapes)
    image = grey_background(rng)
    size = int(rng.integers(20, 45))
    x, y = (int(rng.integers(0, SIZE - size + 1)) for _ in range(2))
    if part == "rare_shape":
        _draw_rare(rng, image, f"{colour} {shape}", (x, y), size)
    else:
        draw_shape(rng, image, f"{colour} {shape}", (x, y), size)
    near = [(colour, other) for other in shapes if other != shape] + [
        (other, shape) for other in HUES if other != colour
    ]
    chosen = [near[at] for at in rng.permutation(len(near))[: CANDIDATES - 1]]
    form = pick(rng, TEMPLATES[split])
    true, *wrong = (form.format(" ".join(_worded(word, part) for word in each)) for each in ((colour, shape), *chosen))
    return Scene(canvas.wear(rng, canvas.finish(image)), true, tuple(wrong), slices)


def _worded(word: str, part: str) -> str:
    return RARE_NAMES[word] if part == "rare_name" else word


def _draw_rare(rng: np.random.Generator, image: NDArray[np.float32], name: str, at: tuple[int, int], size: int) -> None:
    colour, shape = name.split()
    end = size * _FINE - 1
    mask = Image.new("L", (end + 1, end + 1))
    pen = ImageDraw.Draw(mask)
    if shape in _OUTLINES:
        pen.polygon([(x * end, y * end) for x, y in _OUTLINES[shape]], fill=255)
    else:
        pen.ellipse((0, 0, end, end), fill=255)
        hole = (0.22, 0.22, 0.78, 0.78) if shape == "ring" else (0.3, -0.08, 1.16, 0.78)
        pen.ellipse(tuple(part * end for part in hole), fill=0)
    placed = Image.new("L", (SIZE, SIZE))
    placed.paste(mask.resize((size, size), Image.Resampling.BOX), at)
    canvas.paint(image, placed, shade(rng, colour))


def _read(rng: np.random.Generator, text: str, slices: dict[str, str]) -> Scene:
    known = slices["part"] == "head_word"
    wrong = look_alikes(rng, text, CANDIDATES - 1) if known else neighbours(rng, text)[: CANDIDATES - 1]
    while True:
        how = Print((pick(rng, canvas.FONTS), int(rng.integers(9, 17))), (90.0, 255.0))
        if fits(text, how):
            return draw(rng, text, how, wrong, slices)


def sample_word(rng: np.random.Generator, split: str) -> str:
    """A pronounceable word of five to seven letters that no language has, of the split."""
    while True:
        pattern = pick(rng, _PATTERNS)
        word = "".join(pick(rng, VOWELS if kind == "V" else CONSONANTS) for kind in pattern)
        if word_split(word) == split and neighbours(rng, word):
            return word


def word_split(word: str) -> str:
    """The split a word belongs to."""
    return split_of("word:" + word)


def neighbours(rng: np.random.Generator, word: str) -> tuple[str, ...]:
    """All words of the same split that differ in one letter, a vowel or a consonant, in random order."""
    found = [
        word[:at] + other + word[at + 1 :]
        for at, char in enumerate(word)
        for other in (VOWELS if char in VOWELS else CONSONANTS)
        if other != char
    ]
    found = [other for other in found if word_split(other) == word_split(word)]
    return tuple(found[at] for at in rng.permutation(len(found)))
