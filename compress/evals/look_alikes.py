"""Wrong answers that look like a text: a character exchanged for one it is taken for, and other words of its length."""

from __future__ import annotations

import string
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Final

import numpy as np

from compress.core import names

_SETS: Final = "confusable_characters.txt"
_SORTS: Final = {
    char: group for group in (string.ascii_uppercase, string.ascii_lowercase, string.digits) for char in group
}


@cache
def confusions() -> dict[str, str]:
    """By character those that it is taken for in print, itself left out."""
    sets = names.bundled("evals", "data", _SETS).read_text(encoding="utf-8").split()
    joined: dict[str, str] = {}
    for group in sets:
        for char in group:
            joined[char] = "".join(dict.fromkeys(joined.get(char, "") + group.replace(char, "")))
    return joined


def variants(text: str, allowed: Collection[str], seed: int) -> Iterator[str]:
    """Texts with one character exchanged: confusable ones first, then any letter or digit of the same sort, mixed.

    Only `allowed` characters are put in: a lower-case letter would give itself away in data that have none.
    """
    rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
    for options in (confusions(), _SORTS):
        made = [
            text[:at] + to + text[at + 1 :]
            for at, char in enumerate(text)
            for to in options.get(char, "")
            if to in allowed and to != char
        ]
        yield from (made[at] for at in rng.permutation(len(made)))


def nearest_words(text: str, lexicon: Sequence[str], count: int) -> list[str]:
    """The `count` other words of a lexicon that are nearest to a text: in length first, then in shared places.

    `lexicon` holds each word once. Ties are broken by a hash of both, so that no word is everybody's neighbour.
    """

    def distance(word: str) -> tuple[int, int, int]:
        shared = sum(one == other for one, other in zip(text, word, strict=False))
        return abs(len(word) - len(text)), -shared, zlib.crc32(f"{text}\n{word}".encode())

    return sorted((word for word in lexicon if word != text), key=distance)[:count]
