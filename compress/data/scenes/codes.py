"""Short codes, their look-alikes, and the split each code belongs to."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from compress.data.scenes.scene import pick, split_of

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789l"
CONFUSABLES: Final = ("0ODQ", "1Il", "5S", "8B", "2Z", "6G", "UV", "MN", "PR", "EF", "CG", "7T", "4A", "XK")
"""Sets of characters that are taken for one another in print."""

LOOK_ALIKE_CLASSES: Final = ("0ODQ", "1Il", "5S", "8B", "2Z", "6G")
"""The sets that stand as slices of their own."""


@cache
def confusable_with(char: str) -> str:
    """The characters this one is taken for, itself left out."""
    joined = "".join(group for group in CONFUSABLES if char in group)
    return "".join(dict.fromkeys(joined.replace(char, "")))


@cache
def _representative(char: str) -> str:
    """One character for everything reachable through confusions, so that a code and its look-alikes share a split."""
    seen = {char}
    while True:
        wider = seen.union(*(confusable_with(each) for each in seen))
        if wider == seen:
            return min(seen)
        seen = wider


def code_split(code: str) -> str:
    """The split a code belongs to. A code and its confusable variants are always in the same one."""
    return split_of("code:" + "".join(map(_representative, code)))


def sample_code(rng: np.random.Generator, split: str, length: int, including: str = "") -> str:
    """A random code of the split, with at least one character out of `including` where that is given."""
    while True:
        chars = [pick(rng, ALPHABET) for _ in range(length)]
        if including:
            chars[int(rng.integers(length))] = pick(rng, including)
        code = "".join(chars)
        if code_split(code) == split:
            return code


def look_alikes(rng: np.random.Generator, code: str, count: int, confusable_share: float = 0.5) -> tuple[str, ...]:
    """`count` different codes of the same split, each the code with one character changed.

    About `confusable_share` of them change a character into one it is taken for, as far as the code has such
    characters; the rest change it into any other. Where a short code has too few neighbours in its split, codes
    with two changed characters fill up; the small calibration split may have fewer than `count` even so.
    """
    split = code_split(code)
    near = [_changed(code, at, to) for at in range(len(code)) for to in confusable_with(code[at])]
    chosen = _sample(rng, near, min(len(near), round(count * confusable_share)))
    found = dict.fromkeys(chosen)
    others = [_changed(code, at, to) for at in range(len(code)) for to in ALPHABET if to != code[at]]
    others = [other for other in others if other not in found and code_split(other) == split]
    found |= dict.fromkeys(_sample(rng, others, min(len(others), count - len(found))))
    for _ in range(100 * count):
        if len(found) >= count:
            break
        base = pick(rng, others or near or [code])
        other = _changed(base, int(rng.integers(len(code))), pick(rng, ALPHABET))
        if other != code and code_split(other) == split:
            found[other] = None
    return tuple(found)


def _changed(code: str, at: int, to: str) -> str:
    return code[:at] + to + code[at + 1 :]


def _sample(rng: np.random.Generator, options: list[str], count: int) -> list[str]:
    return [options[at] for at in rng.permutation(len(options))[:count]]
