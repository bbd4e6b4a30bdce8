"""Two or more shapes: where they stand to each other, which has which colour, how many, and what is not there."""

from __future__ import annotations

from itertools import islice
from typing import Final

import numpy as np

from compress.data.scenes import canvas
from compress.data.scenes.scene import SIZE, Scene, pick, split_of
from compress.data.scenes.shapes import HUES, SHAPES, draw_shape, grey_background

OPPOSITE: Final = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
COUNTS: Final = ("one", "two", "three", "four")
KINDS: Final = ("horizontal", "vertical", "horizontal", "vertical", "binding", "count", "negation")


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One scene of shapes. The kinds of statement take turns."""
    kind = KINDS[index % len(KINDS)]
    if kind == "count":
        return _count(rng, split)
    first, second = _pair(rng, split)
    if kind == "negation":
        return _negation(rng, first, second)
    return _two(rng, kind, first, second)


def _pair(rng: np.random.Generator, split: str) -> tuple[str, str]:
    """Two objects that differ in colour and in shape; whichever way they are told, the pair belongs to one split."""
    while True:
        colours, shapes = rng.permutation(list(HUES))[:2], rng.permutation(list(SHAPES))[:2]
        objects = [f"{colour} {shape}" for colour, shape in zip(colours, shapes, strict=True)]
        key = " ".join(sorted(colours)) + " " + " ".join(sorted(shapes))  # swapped colours stay in the split as well
        if split_of("pair:" + key) == split:
            return objects[0], objects[1]


def _swapped(first: str, second: str) -> tuple[str, str]:
    """The same two shapes with each other's colour."""
    (colour, shape), (colour2, shape2) = first.split(), second.split()
    return f"{colour2} {shape}", f"{colour} {shape2}"


def _two(rng: np.random.Generator, kind: str, first: str, second: str) -> Scene:
    relation = pick(rng, ("above", "below") if kind == "vertical" else ("left of", "right of"))
    image = grey_background(rng)
    sizes = [int(rng.integers(12, 27)) for _ in range(2)]
    along = _apart(rng, sizes)
    across = [int(rng.integers(0, SIZE - size + 1)) for size in sizes]
    if relation in ("right of", "below"):
        along, across, sizes = along[::-1], across[::-1], sizes[::-1]
    places = zip(across, along, strict=True) if kind == "vertical" else zip(along, across, strict=True)
    marks = tuple(
        draw_shape(rng, image, name, at, size) for name, at, size in zip((first, second), places, sizes, strict=True)
    )
    third, fourth = _swapped(first, second)
    true = f"a {first} {relation} a {second}"
    wrong = {
        f"a {first} {OPPOSITE[relation]} a {second}": None,
        f"a {second} {relation} a {first}": None,
        f"a {third} {relation} a {fourth}": None,
    }
    if kind == "binding":
        true = f"a {first} and a {second}"
        wrong = dict.fromkeys((f"a {third} and a {fourth}",))
    slices = {"statement": kind}
    return Scene(canvas.wear(rng, canvas.finish(image)), true, tuple(wrong), slices, marks)


def _apart(rng: np.random.Generator, sizes: list[int]) -> list[int]:
    """Start positions of two extents that follow each other without overlap."""
    room = SIZE - sum(sizes)
    before, between = sorted(int(rng.integers(0, room + 1)) for _ in range(2))
    return [before, sizes[0] + between]


def _count(rng: np.random.Generator, split: str) -> Scene:
    number = int(rng.integers(1, len(COUNTS) + 1))
    while True:
        name = f"{pick(rng, tuple(HUES))} {pick(rng, SHAPES)}"
        if split_of("count:" + name) == split:
            break
    image = grey_background(rng)
    cells = rng.permutation(9)[:number]
    marks = []
    for cell in cells:
        size = int(rng.integers(11, 19))
        x, y = (int(21.3 * place + rng.integers(0, 21 - size + 1)) for place in (cell % 3, cell // 3))
        marks.append(draw_shape(rng, image, name, (x, y), size))
    statements = [f"{count} {name}" + ("s" if count != "one" else "") for count in COUNTS]
    statements = [text.replace("crosss", "crosses") for text in statements]
    true = statements.pop(number - 1)
    return Scene(canvas.wear(rng, canvas.finish(image)), true, tuple(statements), {"statement": "count"}, tuple(marks))


def _negation(rng: np.random.Generator, first: str, second: str) -> Scene:
    present = bool(rng.random() < 0.5)
    image = grey_background(rng)
    sizes = [int(rng.integers(12, 27)) for _ in range(2)]
    along = _apart(rng, sizes)
    shown = (first, second) if present else (first,)
    marks = tuple(
        draw_shape(rng, image, name, (at, int(rng.integers(0, SIZE - size + 1))), size)
        for name, at, size in islice(zip(shown, along, sizes, strict=False), 2)
    )
    texts = (f"a {first} with a {second}", f"a {first} without a {second}")
    true, wrong = texts if present else texts[::-1]
    return Scene(canvas.wear(rng, canvas.finish(image)), true, (wrong,), {"statement": "negation"}, marks)
