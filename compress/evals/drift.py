"""Scores as probabilities: how far confidence, calibration and order move between two models on the same items.

A softmax of logit scale times cosine is what a threshold downstream is set on. Calibration error is that of Guo et al.
(arXiv:1706.04599), in 15 bins of equal width: fixed edges, so that both models are cut at the same confidences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.core.score import Score
from compress.evals import intervals
from compress.evals.ranking import TIE, Right, Rows, strictly_best
from compress.gates.intervals import bca_bounds

BINS: Final = 15
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Answers:
    """Of each item the probability of the best class, whether that class is true, and whether there is a best at all.

    Where there is none (a tie, a number that is not finite) the answer counts as wrong with confidence 1.
    """

    confidence: Rows
    right: Right
    answered: NDArray[np.bool_]

    @property
    def gaps(self) -> Rows:
        """Right minus confidence of each item, in the column of its bin: (n, BINS)."""
        bins = np.minimum((self.confidence * BINS).astype(np.int64), BINS - 1)
        made = np.zeros((len(bins), BINS))
        made[np.arange(len(bins)), bins] = self.right - self.confidence
        return made

    def kept(self, which: NDArray[np.bool_]) -> Rows:
        """The gaps of some items, 0 for the others."""
        made: Rows = np.where(which[:, None], self.gaps, 0.0)
        return made


def answers(similarities: Rows, scale: float, labels: NDArray[np.int64]) -> Answers:
    """What a model answers: similarities (n, classes), its logit scale, and the true classes."""
    finite = np.asarray(np.isfinite(similarities).all(axis=1), np.bool_)
    safe = np.where(finite[:, None], similarities, 0.0)
    answered = finite & (strictly_best(safe, safe.argmax(axis=1)) > 0)
    logits = scale * (safe - safe.max(axis=1, keepdims=True))
    top = 1 / np.exp(logits).sum(axis=1)
    right = strictly_best(safe, labels) * answered
    return Answers(np.where(answered, top, 1.0), right, answered)


def calibration_error(found: Answers) -> Score:
    """Expected calibration error with a BCa interval."""
    gaps, n = found.gaps, len(found.right)
    value = float(np.abs(gaps.sum(axis=0)).sum() / n)
    if n < 2:
        return Score(value, None, None, n)
    ends = intervals.bca(n, lambda weights: np.abs(weights @ gaps).sum(axis=1) / n, 0)
    return Score(value, value, value, n) if not found.answered.any() else intervals.distance(value, ends, n)


def calibration_drift(before: Answers, after: Answers) -> Score:
    """How much the calibration error changes, up or down; an item without an answer counts as a change of 1."""
    n, sound = len(before.right), before.answered & after.answered
    lost = 1 - float(sound.mean())
    old, new = before.kept(sound), after.kept(sound)

    def change(weights: Rows) -> Rows:
        made: Rows = (np.abs(weights @ new).sum(axis=1) - np.abs(weights @ old).sum(axis=1)) / n
        return made

    if (old == new).all():
        return Score(lost, lost, lost, n) if n > 1 else Score(lost, None, None, n)
    found = intervals.distance(float(change(np.ones((1, n)))[0]), intervals.bca(n, change, 0), n)
    low, high = (None if end is None else min(1.0, lost + end) for end in (found.low, found.high))
    return Score(min(1.0, lost + found.value), low, high, n)


def confidence_drift(before: Answers, after: Answers) -> Score:
    """Mean absolute change of the probability of the best class; 1 for an item without an answer."""
    moved = np.where(before.answered & after.answered, np.abs(after.confidence - before.confidence), 1.0)
    value, n = float(moved.mean()), len(moved)
    if np.ptp(moved) == 0:  # a bootstrap has nothing to draw from
        return Score(value, value, value, n) if n > 1 else Score(value, None, None, n)
    low, high = bca_bounds(moved, np.ones_like(moved), _CONFIDENCE)
    return Score(value, low, high, n) if np.isfinite((low, high)).all() else Score(value, None, None, n)


def rank_correlations(before: Rows, after: Rows) -> Rows:
    """Spearman's correlation of each row of (n, m) with its counterpart; -1, the worst there is, where it has none.

    Similarities that are a tie share their rank.
    """
    from scipy.stats import rankdata

    sound = np.asarray(np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1), np.bool_)
    ranks = []
    for scores in (before, after):
        rounded = np.round(np.where(sound[:, None], scores, 0.0) / TIE)
        ranked = rankdata(rounded, axis=1)
        ranks.append(ranked - ranked.mean(axis=1, keepdims=True))
    lengths = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    products = (ranks[0] * ranks[1]).sum(axis=1)
    made: Rows = np.divide(products, lengths, out=np.full(len(lengths), -1.0), where=lengths > 0)
    return made
