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


class Lexicon:
    """Words, each once, that are compared with a text all at the same time."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.characters = frozenset("".join(words))
        self._lengths = np.array(list(map(len, words)), np.int64)
        self._hashes = np.array([zlib.crc32(word.encode()) for word in words], np.int64)
        self._codes = np.zeros((len(words), int(self._lengths.max(initial=1))), np.int32)
        for row, word in enumerate(words):
            self._codes[row, : len(word)] = [ord(char) for char in word]

    def nearest(self, text: str, count: int) -> tuple[str, ...]:
        """The `count` other words that are nearest: in length first, then in characters at the same place.

        Ties are broken by hashes of both, so that no word is everybody's neighbour.
        """
        own = np.array([ord(char) for char in text], np.int32)[: self._codes.shape[1]]
        shared = (self._codes[:, : len(own)] == own).sum(axis=1)
        ties = self._hashes ^ zlib.crc32(text.encode())
        order = np.lexsort((ties, -shared, abs(self._lengths - len(text))))
        near = (self.words[at] for at in order[: count + 1])
        return tuple(word for word in near if word != text)[:count]
