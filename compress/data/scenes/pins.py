"""A component with numbered pins and a label beside each: what does pin 3 say?"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from compress.data.scenes import canvas
from compress.data.scenes.codes import look_alikes, sample_code
from compress.data.scenes.scene import SIZE, Mark, Scene, pick

PROMPT: Final = "pin {} is {}"
_FACES: Final = ("DejaVuSans", "DejaVuSansMono", "DejaVuSans-Bold")


def render(rng: np.random.Generator, split: str, index: int) -> Scene:  # noqa: ARG001  (every kind has one signature)
    """One component with three pins on a side. Asked for is one; wrong are its neighbours' labels and look-alikes."""
    pixels = int(rng.integers(8, 13))
    face = (pick(rng, _FACES), pixels)
    fore, back = canvas.colour_pair(rng, 110, 255)
    image = canvas.background(rng, back)
    pins = sorted(int(pin) + 1 for pin in rng.permutation(9)[:3])
    labels = _labels(rng, split, len(pins))
    body = int(rng.integers(17, 22))
    mask = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(mask)
    pen.rectangle((-1, 2, body, SIZE - 3), outline=255)
    marks: list[Mark] = []
    for row, (pin, label) in enumerate(zip(pins, labels, strict=True)):
        top = 3 + row * 20 + int(rng.integers(0, 19 - pixels - pixels // 4))
        middle = top + round(pixels * 0.6)
        pen.line((body, middle, body + 6, middle), fill=255)
        number_at = (int(body - canvas.text_width(str(pin), *face)) - 2, top)
        marks += canvas.draw_text(image, str(pin), face, number_at, fore)
        marks += canvas.draw_text(image, label, face, (body + 9, top), fore)
    canvas.paint(image, mask, fore)
    asked = int(rng.integers(len(pins)))
    wrong = [label for at, label in enumerate(labels) if at != asked]
    wrong += look_alikes(rng, labels[asked], 5)
    texts = tuple(dict.fromkeys(PROMPT.format(pins[asked], label) for label in wrong if label != labels[asked]))
    slices = {"size": "8-9" if pixels < 10 else "10-12"}
    true = PROMPT.format(pins[asked], labels[asked])
    return Scene(canvas.wear(rng, canvas.finish(image)), true, texts, slices, tuple(marks))


def _labels(rng: np.random.Generator, split: str, count: int) -> list[str]:
    labels: dict[str, None] = {}
    while len(labels) < count:
        labels[sample_code(rng, split, int(rng.integers(2, 4)))] = None
    return list(labels)
