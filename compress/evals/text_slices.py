"""Slices of images that show text: by the text's length, its characters, and how small it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from PIL import Image

from compress.recipe.fields import PositiveInt, Strict, Text

_PRICE: Final = re.compile(r"\d[.,]\d{2}(?!\d)")


class Slicing(Strict):
    """Where slices begin and end; a dimension that is not named is not made.

    `length` and `height` hold the highest number of each slice but the last: [3, 6] makes 1-3, 4-6 and 7+, in
    characters and in pixels of the image. `digits` tells prices (1.50) from other numbers and from neither, `case`
    upper from lower and mixed. `characters` names sets, each a dimension of its own: a text has one of them, or none.
    """

    length: tuple[PositiveInt, ...] = ()
    height: tuple[PositiveInt, ...] = ()
    digits: bool = False
    case: bool = False
    characters: tuple[Text, ...] = ()


def slices_of(spec: Slicing, texts: Sequence[str], images: Sequence[Image.Image]) -> dict[str, tuple[str, ...]]:
    """By dimension the slice of each item. Images are opened only where their height is asked for."""
    made: dict[str, tuple[str, ...]] = {}
    if spec.length:
        made["length"] = tuple(within(len(text), spec.length) for text in texts)
    if spec.height:
        made["height"] = tuple(within(image.height, spec.height) for image in images)
    if spec.digits:
        made["digits"] = tuple(map(_digits, texts))
    if spec.case:
        made["case"] = tuple(map(_case, texts))
    for group in spec.characters:
        made[group] = tuple("with" if set(group) & set(text) else "without" for text in texts)
    return made


def within(number: int, ends: Sequence[int]) -> str:
    """The slice of a number: '4-6' for 5 with ends (3, 6), '7+' above the last."""
    low = 1
    for end in sorted(ends):
        if number <= end:
            return f"{low}-{end}" if low < end else str(end)
        low = end + 1
    return f"{low}+"


def _digits(text: str) -> str:
    if _PRICE.search(text):
        return "price"
    return "number" if any(char.isdigit() for char in text) else "none"


def _case(text: str) -> str:
    if text.upper() == text.lower():
        return "none"
    return "upper" if text == text.upper() else "lower" if text == text.lower() else "mixed"
