"""A code with one character that has a double: which of the two does it say?"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageStat

from compress.data.scenes import canvas
from compress.data.scenes.codes import ALPHABET, code_split, sample_code
from compress.data.scenes.reading import Print, draw, fits
from compress.data.scenes.scene import Scene, pick

PAIRS: Final = {
    "0O": (("0", "O"),), "0D": (("0", "D"),), "OQ": (("O", "Q"),), "1I": (("1", "I"),), "1l": (("1", "l"),),
    "Il": (("I", "l"),), "5S": (("5", "S"),), "8B": (("8", "B"),), "2Z": (("2", "Z"),), "6G": (("6", "G"),),
    "rn-m": (("rn", "m"),), "comma-point": ((",", "."),), "quotes": (("'", '"'), ("'", "`")),
}  # fmt: skip
"""What stands as a slice of its own -> the pairs of texts that are taken for one another."""

PIXELS: Final = (14, 24)
INK: Final = 2.0
"""Pixels of ink in which two doubles differ at least: what is printed alike nobody can read."""

SAME_IN: Final = {"Il": ("DejaVuSans", "DejaVuSans-Bold")}
"""Faces where two characters are the same bar but for a pixel of height."""

_DIGITS: Final = "0123456789"


def render(rng: np.random.Generator, split: str, index: int) -> Scene:
    """One code, and the same with the double. Pairs take turns; which of the two is printed is drawn."""
    name = tuple(PAIRS)[index % len(PAIRS)]
    pair = pick(rng, PAIRS[name])
    one, other = pair if rng.random() < 0.5 else pair[::-1]
    while True:
        face = (
            pick(rng, [each for each in canvas.FONTS if each not in SAME_IN.get(name, ())]),
            int(rng.integers(PIXELS[0], PIXELS[1] + 1)),
        )
        true, wrong = _codes(rng, split, name, one, other)
        how = Print(face, (90.0, 255.0))
        if differ(one, other, face) >= INK and fits(true, how):
            break
    return draw(rng, true, how, (wrong,), {"pair": name})


def _codes(rng: np.random.Generator, split: str, name: str, one: str, other: str) -> tuple[str, str]:
    """Two codes of the split that differ in the pair alone.

    What is not in the alphabet of codes is put into a code; without it the code decides the split.
    """
    if {one, other} <= set(ALPHABET):
        code = sample_code(rng, split, int(rng.integers(2, 5)), including=one)
        at = code.index(one)
        return code, code[:at] + other + code[at + 1 :]
    base = _number(rng, split) if name == "comma-point" else sample_code(rng, split, int(rng.integers(2, 4)))
    at = int(rng.integers(1, len(base)))
    return base[:at] + one + base[at:], base[:at] + other + base[at:]


def _number(rng: np.random.Generator, split: str) -> str:
    while True:
        number = "".join(pick(rng, _DIGITS) for _ in range(int(rng.integers(2, 5))))
        if code_split(number) == split:
            return number


@cache
def differ(one: str, other: str, face: tuple[str, int]) -> float:
    """In how many pixels of ink two short texts differ, one laid upon the other as well as whole pixels allow."""
    size = 4 * face[1]
    still, *moved = (Image.new("L", (size, size)) for _ in range(4))
    ImageDraw.Draw(still).text((face[1], 0), one, font=canvas.font(*face), fill=255)
    for step, mask in enumerate(moved, -1):
        ImageDraw.Draw(mask).text((face[1] + step, 0), other, font=canvas.font(*face), fill=255)
    return min(float(ImageStat.Stat(ImageChops.difference(still, mask)).sum[0]) for mask in moved) / 255
