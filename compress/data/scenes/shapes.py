"""Coloured shapes: the palette, how each is drawn, and scenes of one shape to be named."""

from __future__ import annotations

import colorsys
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.canvas import Colour
from compress.data.scenes.scene import SIZE, Mark, Scene, pick

HUES: Final = {
    "red": (0, 0.9, 0.85), "orange": (30, 0.95, 0.95), "yellow": (56, 0.9, 0.95), "green": (120, 0.85, 0.6),
    "cyan": (182, 0.85, 0.9), "blue": (226, 0.9, 0.85), "purple": (278, 0.8, 0.65), "pink": (328, 0.5, 0.98),
}  # fmt: skip
"""Colour names as hue in degrees, saturation and value."""

SHAPES: Final = ("square", "circle", "triangle", "diamond", "star", "cross")
TEMPLATES: Final = {
    "train": ("a {}", "one {}", "this is a {}", "the picture of a {}"),
    "calibration": ("the {}",),
    "development": ("this is one {}",),
    "release": ("a picture of a {}",),
}
"""Every word is seen in training, no whole sentence of one split is used in another."""


def class_names() -> tuple[str, ...]:
    """Every colour with every shape."""
    return tuple(f"{colour} {shape}" for colour in HUES for shape in SHAPES)


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One shape on a grey background. Classes take turns."""
    names = class_names()
    name = names[index % len(names)]
    image = grey_background(rng)
    size = int(rng.integers(10, 41))
    x, y = (int(rng.integers(0, SIZE - size + 1)) for _ in range(2))
    mark = draw_shape(rng, image, name, (x, y), size)
    template = pick(rng, TEMPLATES[split])
    others = tuple(template.format(other) for other in names if other != name)
    large = "large" if size >= 24 else "small"
    return Scene(canvas.wear(rng, canvas.finish(image)), template.format(name), others, {"extent": large}, (mark,))


def grey_background(rng: np.random.Generator) -> NDArray[np.float32]:
    """A background without a hue, so that only the shapes have a colour."""
    level = int(pick(rng, (rng.integers(0, 70), rng.integers(200, 256))))
    return canvas.background(rng, (level, level, level))


def shade(rng: np.random.Generator, colour: str) -> Colour:
    """A shade of a named colour: hue, saturation and value vary a little."""
    hue, saturation, value = HUES[colour]
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + rng.uniform(-6, 6)) % 360 / 360,
        saturation * rng.uniform(0.9, 1.05) if saturation < 0.95 else saturation * rng.uniform(0.9, 1.0),
        min(1.0, value * rng.uniform(0.92, 1.05)),
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_shape(rng: np.random.Generator, image: NDArray[np.float32], name: str, at: tuple[int, int], size: int) -> Mark:
    """Draw '<colour> <shape>' into the square of side `size` at `at`; returns its mark."""
    colour, shape = name.split()
    fine = 4  # drawn at four times the size and reduced, for smooth edges
    mask = Image.new("L", (size * fine, size * fine))
    pen, end = ImageDraw.Draw(mask), size * fine - 1
    if shape == "circle":
        pen.ellipse((0, 0, end, end), fill=255)
    else:
        pen.polygon([(x * end, y * end) for x, y in _outline(shape)], fill=255)
    placed = Image.new("L", (SIZE, SIZE))
    placed.paste(mask.resize((size, size), Image.Resampling.BOX), at)
    canvas.paint(image, placed, shade(rng, colour))
    x, y = at
    return Mark("shape", name, ((x, y), (x + size, y), (x + size, y + size), (x, y + size)))


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape in the unit square."""
    match shape:
        case "square":
            return [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]
        case "triangle":
            return [(0.5, 0.0), (1.0, 0.95), (0.0, 0.95)]
        case "diamond":
            return [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
        case "cross":
            a, b = 0.33, 0.67
            return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
        case "star":
            radii = (0.5, 0.2)
            turns = [(radii[step % 2], math.pi * step / 5) for step in range(10)]
            return [(0.5 + radius * math.sin(turn), 0.5 - radius * math.cos(turn)) for radius, turn in turns]
    raise ValueError(f"no shape is called {shape!r}; there are {', '.join(SHAPES)}")
