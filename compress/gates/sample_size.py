"""How many items a gate needs before it can be expected to decide."""

from __future__ import annotations

import math

from compress.gates.intervals import quantile


def items_needed(
    margin: float, confidence: float, discordance: float, true_drop: float = 0.0, power: float = 0.8
) -> int | None:
    """Smallest n at which a candidate whose true drop is `true_drop` passes with probability `power`.

    Normal approximation; `discordance` is the mean square of a paired difference, which for right and wrong is the
    share of items on which the two differ. None where the drop reaches the margin: no number of items passes it.
    """
    if true_drop >= margin:
        return None
    reach = (quantile(confidence) + quantile(power)) / (margin - true_drop)
    return max(2, math.ceil(reach * reach * max(discordance - true_drop * true_drop, 0.0)))
