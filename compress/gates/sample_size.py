"""How many items a gate needs before it can be expected to decide.

Source: J.-M. Nam, Biometrics 53 (1997) 1422-1430, sample size for the score test of non-inferiority with paired
proportions: the spread under the null is that of the restricted estimate, not that of the alternative.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from compress.gates.intervals import CONTINUITY, clopper_pearson_high, quantile, restricted_variance

_COUNTED: Final = 600
"""Expected discordant items up to which the power is summed over all tables; above, the formula is close enough."""

_RARE: Final = 1e-9
"""Tables less likely than this are left out of the sum, as if they did not pass."""


def items_needed(
    margin: float, confidence: float, discordance: float, true_drop: float = 0.0, power: float = 0.8
) -> int | None:
    """Smallest n at which a candidate whose true drop is `true_drop` passes with probability `power`.

    Normal approximation, for clustered items and numbers; `discordance` is the mean square of a paired difference.
    None where the drop reaches the margin: no number of items passes it.
    """
    if true_drop >= margin:
        return None
    reach = (quantile(confidence) + quantile(power)) / (margin - true_drop)
    return max(2, math.ceil(reach * reach * max(discordance - true_drop * true_drop, 0.0)))


def pairs_needed(
    margin: float, confidence: float, discordance: float, true_drop: float = 0.0, power: float = 0.8
) -> int | None:
    """The same for items that are right or wrong and stand alone, judged by `paired_bounds`.

    `discordance` is the share of items on which reference and candidate differ. Nam's formula, then upwards until the
    exact power is what was asked for.
    """
    if true_drop >= margin:
        return None
    differing = min(max(discordance, abs(true_drop)), 1.0)
    null = restricted_variance((differing + true_drop) / 2, (differing - true_drop) / 2, 1.0, margin)
    spread = quantile(confidence) * math.sqrt(null) + quantile(power) * math.sqrt(differing - true_drop**2)
    room = margin - true_drop
    n = max(2, math.ceil((spread / room) ** 2))
    if n * differing > _COUNTED:  # n * room - CONTINUITY = spread * sqrt(n), solved for n
        return math.ceil(((spread + math.sqrt(spread**2 + 4 * room * CONTINUITY)) / (2 * room)) ** 2)
    while pairs_power(n, margin, confidence, differing, true_drop) < power:
        n += 1 + n // 500
    return n


def pairs_power(n: int, margin: float, confidence: float, discordance: float, true_drop: float) -> float:
    """Probability that n such items pass, summed over the tables that can be expected."""
    from scipy.stats import binom

    worse = (discordance + true_drop) / (2 * discordance) if discordance else 0.5
    first, last = (int(end) for end in binom.ppf((_RARE, 1 - _RARE), n, discordance))
    fewest, most = int(binom.ppf(_RARE, first, worse)), int(binom.ppf(1 - _RARE, last, worse))
    differing = np.arange(first, last + 1)[:, None]
    lost = np.arange(max(fewest, 0), most + 1)[None, :]
    gained = np.maximum(differing - lost, 0)
    passing = (lost <= differing) & _passes(lost, gained, n, margin, confidence)
    chances = binom.pmf(differing, n, discordance) * binom.pmf(lost, differing, worse)
    return float(chances[passing].sum())


def _passes(lost: np.ndarray, gained: np.ndarray, n: int, margin: float, confidence: float) -> np.ndarray:
    """Whether the upper bound of each table is below the margin, without looking for the bound."""
    spread = np.sqrt(n * restricted_variance(lost, gained, n, margin))
    score = lost - gained + CONTINUITY - n * margin + quantile(confidence) * spread < 0
    exact: np.ndarray = clopper_pearson_high(lost, n, confidence) < margin
    return np.where(gained == 0, exact, score)
