"""A code in an image that has suffered, or in a paragraph: which of sixteen look-alike codes does it say?"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from compress.data.scenes import canvas
from compress.data.scenes.codes import look_alikes, sample_code
from compress.data.scenes.reading import CANDIDATES, PROMPT
from compress.data.scenes.scene import SIZE, Scene

CONDITIONS: Final = ("blur", "jpeg", "noise", "enlarged", "reduced", "paragraph")
"""All of them well beyond the slight wear of `reading`."""

FONTS: Final = (*canvas.FONTS, "cmr10", "cmss10", "cmtt10")
"""The fonts of `reading`, and three faces of Computer Modern, which no other scene uses."""

SIZES: Final = {"10-14": (10, 14), "15-24": (15, 24)}
BLUR: Final = (0.7, 1.1)  # standard deviation in pixels; `reading` has at most 0.7
QUALITY: Final = (15, 35)  # JPEG; `reading` has at least 50
NOISE: Final = (10.0, 25.0)  # standard deviation in grey levels; `reading` has at most 8
ENLARGED: Final = (0.65, 0.8)  # of its size is how large the print was before it was enlarged
REDUCED: Final = (2.0, 4.0)
TURNS: Final = len(CONDITIONS) * len(FONTS) * len(SIZES)
_MARGIN: Final = 2


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One code, or a paragraph of them of which one is asked for. Conditions, fonts and sizes take turns."""
    condition = CONDITIONS[index % len(CONDITIONS)]
    name = FONTS[index // len(CONDITIONS) % len(FONTS)]
    size = tuple(SIZES)[index // (len(CONDITIONS) * len(FONTS)) % len(SIZES)]
    low, high = SIZES[size]
    face = (name, int(rng.integers(low, high + 1)))
    while True:
        lines = _paragraph(rng, split, face) if condition == "paragraph" else [[_fitting(rng, split, face)]]
        words = [word for line in lines for word in line]
        code = words[int(rng.integers(len(words)))]
        negatives = look_alikes(rng, code, CANDIDATES - 1)
        if negatives and not set(negatives) & set(words):  # what stands on the page is no wrong answer
            break
    fore, back = canvas.colour_pair(rng, 90, 255)
    image = canvas.background(rng, back)
    canvas.paint(image, _printed(rng, lines, face, condition), fore)
    return Scene(
        image=_worn(rng, canvas.finish(image), condition),
        caption=PROMPT.format(code),
        negatives=tuple(PROMPT.format(other) for other in negatives),
        slices={"condition": condition, "font": name, "size": size},
    )


def _fitting(rng: np.random.Generator, split: str, face: tuple[str, int]) -> str:
    while True:
        code = sample_code(rng, split, int(rng.integers(2, 5)))
        if canvas.text_width(code, *face) <= SIZE - 2 * _MARGIN:
            return code


def _paragraph(rng: np.random.Generator, split: str, face: tuple[str, int]) -> list[list[str]]:
    """As many lines of different codes as fit, at least two."""
    number = max(2, (SIZE - 2 * _MARGIN) // sum(canvas.font(*face).getmetrics()))
    lines: list[list[str]] = []
    seen: set[str] = set()
    for _ in range(number):
        word, line = _fitting(rng, split, face), list[str]()
        while not line or (word not in seen and _wide([*line, word], face) <= SIZE - 2 * _MARGIN):
            line.append(word)
            seen.add(word)
            word = sample_code(rng, split, int(rng.integers(2, 5)))
        lines.append(line)
    return lines


def _wide(words: list[str], face: tuple[str, int]) -> float:
    return canvas.text_width(" ".join(words), *face)


def _printed(rng: np.random.Generator, lines: list[list[str]], face: tuple[str, int], condition: str) -> Image.Image:
    """Where ink is, drawn at another scale and resized where the condition says so."""
    scale = {"enlarged": rng.uniform(*ENLARGED), "reduced": rng.uniform(*REDUCED)}.get(condition, 1.0)
    used = canvas.font(face[0], max(1, round(face[1] * scale)))
    pitch = sum(used.getmetrics())
    side = round(SIZE * scale)
    wide = max(used.getlength(" ".join(line)) for line in lines)
    left = rng.uniform(1, max(side - wide, 1.0))
    top = rng.uniform(0, max(side - pitch * len(lines), 0))
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    for row, line in enumerate(lines):
        pen.text((int(left), int(top) + row * pitch), " ".join(line), font=used, fill=255)
    return mask if side == SIZE else mask.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _worn(rng: np.random.Generator, image: NDArray[np.uint8], condition: str) -> NDArray[np.uint8]:
    if condition == "blur":
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR))))
    if condition == "jpeg":
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG", quality=int(rng.integers(QUALITY[0], QUALITY[1] + 1)))
        return np.asarray(Image.open(held).convert("RGB"))
    if condition == "noise":
        level = rng.uniform(*NOISE)
        return canvas.finish(image.astype(np.float32) + rng.normal(0, level, image.shape).astype(np.float32))
    return image
