"""Greedy decoding of connectionist temporal classification (CTC): the best class of every step, runs taken once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.evals.ranking import TIE

NO_ANSWER: Final = -1
"""What a step says whose best class is not finite or is tied with another: a character that no text has."""


def best_path(logits: ArrayLike) -> NDArray[np.int64]:
    """The strictly best class of every step, (n, steps), of logits (n, classes, steps); NO_ANSWER if there is none."""
    values = np.asarray(logits, np.float64)
    second, first = np.partition(values, -2, axis=1)[:, -2:].swapaxes(0, 1)  # NaN sorts to the end
    with np.errstate(invalid="ignore"):
        clear = np.isfinite(first) & (first - TIE > second)
    return np.where(clear, values.argmax(axis=1), NO_ANSWER)


def collapsed(path: Sequence[int], blank: int) -> tuple[int, ...]:
    """What a path says (Graves et al. 2006, section 3.1): each run of a class once, without the blank."""
    return tuple(key for key, _ in groupby(path) if key != blank)
