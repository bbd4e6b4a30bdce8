"""Which slices are damaged for sure: a diagnosis over all of them at once. No gate looks at it.

Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from compress.gates import statistics
from compress.gates.outcomes import Measurement, Outcomes, Unmeasured, paired
from compress.gates.statistics import Mask

LEVEL: Final = 0.05
"""Of naming any slice that is not damaged, however many there are."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A slice (or all items of a metric without slices), its drop, and how likely one like it is without damage.

    `p` is one-sided and of this slice alone; `adjusted` takes into account how many were looked at.
    """

    metric: str
    slice: str | None
    n: int
    drop: float
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class Damages:
    """Damaged slices, surest first, and how many were looked at."""

    slices: tuple[Damage, ...]
    tested: int


def damages(metrics: Mapping[str, Measurement]) -> Damages:
    """Slices of all paired outcomes in which the candidate is worse, with an error of `LEVEL` over all of them.

    Outcomes that decide nothing are left out: they block by themselves.
    """
    found = [each for name, measured in sorted(metrics.items()) for each in _slices(name, paired(measured))]
    rates = [worse(outcomes, mask) for _, _, outcomes, mask in found]
    rows = [
        Damage(name, place, int(mask.sum()), statistics.drop_value(outcomes, mask), p, adjusted)
        for (name, place, outcomes, mask), p, adjusted in zip(found, rates, holm(rates), strict=True)
        if adjusted < LEVEL
    ]
    return Damages(tuple(sorted(rows, key=lambda row: (row.p, row.metric, row.slice or ""))), len(found))


def _slices(name: str, outcomes: Outcomes | Unmeasured) -> Iterator[tuple[str, str | None, Outcomes, Mask]]:
    if isinstance(outcomes, Unmeasured) or not statistics.comparable(outcomes):
        return
    if not outcomes.slices:
        yield name, None, outcomes, np.ones(len(outcomes.items), np.bool_)
    for dimension, labels in sorted(outcomes.slices.items()):
        for label in sorted(set(labels)):
            yield name, f"{dimension}={label}", outcomes, np.asarray(labels) == label


def worse(outcomes: Outcomes, mask: Mask) -> float:
    """One-sided p-value that the candidate is worse on the masked items.

    Exact for items that are right or wrong and stand alone: given how many changed, losses are as likely as gains.
    Otherwise Wilcoxon's signed ranks of what each cluster lost in all, weighted.
    """
    from scipy.stats import binomtest, wilcoxon

    lost = (outcomes.reference - outcomes.candidate)[mask]
    if statistics.independent(outcomes, mask):
        changed = int(np.count_nonzero(lost))
        return float(binomtest(int((lost > 0).sum()), changed, alternative="greater").pvalue) if changed else 1.0
    sums, _ = statistics.per_cluster(outcomes, lost, mask)
    changed_sums = sums[sums != 0]
    return float(wilcoxon(changed_sums, alternative="greater").pvalue) if len(changed_sums) else 1.0


def holm(rates: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values in the order given: the k-th smallest of m times m - k + 1, never below a smaller one's."""
    count, highest = len(rates), 0.0
    adjusted = [0.0] * count
    for rank, at in enumerate(sorted(range(count), key=rates.__getitem__)):
        highest = max(highest, min(1.0, (count - rank) * rates[at]))
        adjusted[at] = highest
    return tuple(adjusted)
