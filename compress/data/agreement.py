"""Whether two models read texts alike: a student that mimics a teacher must be told the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.preprocess import Ids, open_preprocess

PROBES: Final = ("the text 0O1l", "a red square left of a blue circle", "Ünïcode ß – 東京", "CAPS and lower, 12.50 €")
"""Texts that tokenizers disagree on: digits, case, accents, other scripts."""


def require_same_tokens(student: Path, teacher: Path, texts: Sequence[str] = PROBES) -> None:
    """Raise UsageError where the preprocessing of two folders makes other tokens of the same texts."""
    ours, theirs = (_tokens(folder, texts) for folder in (student, teacher))
    for at, text in enumerate(texts):
        a, b = ours[at], theirs[at]
        if len(a) != len(b) or (a != b).any():
            raise UsageError(
                f"the tokenizers do not match: {text!r} is {_shown(a)} for the student and {_shown(b)} for the teacher",
                str(student),
                "give the student the teacher's tokenizer, or distill its vision tower only",
            )


def require_vocabulary(folder: Path, rows: int, texts: Sequence[str] = PROBES) -> None:
    """Raise UsageError where a folder's tokenizer makes tokens beyond an embedding table of `rows` rows."""
    largest = max(int(each.max()) for each in _tokens(folder, texts))
    if largest >= rows:
        hint = "the tokenizer is another model's"
        raise UsageError(f"the tokenizer makes token {largest}, and the table has {rows} rows", str(folder), hint)


def _tokens(folder: Path, texts: Sequence[str]) -> list[Ids]:
    """The real tokens of every text."""
    ids, mask = open_preprocess(folder, runtime.read(folder)).texts(texts)
    return [row[seen == 1] for row, seen in zip(np.asarray(ids), np.asarray(mask), strict=True)]


def _shown(ids: Ids) -> str:
    told = ", ".join(str(each) for each in ids[:8])
    return f"[{told}{', …' if len(ids) > 8 else ''}]"
