"""A measured number that knows how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """A value with its confidence interval [low, high] from `n` items.

    `low` and `high` are None where the data allow no interval (one sample): such a score can be shown, but no gate
    passes on it. A fact that is not sampled, such as a file size, is `Score.exact`.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def exact(cls, value: float) -> Score:
        """A fact: its interval is the value itself."""
        return cls(value, value, value, 1)

    @property
    def decidable(self) -> bool:
        """Whether a gate may be decided on it: finite, with an interval."""
        ends = (self.value, self.low, self.high)
        return self.n > 0 and all(end is not None and math.isfinite(end) for end in ends)
