"""What a tower gives for calibration samples, and how far another graph of it is from that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.models.tower import Tower
from compress.steps._activations import watch_values
from compress.steps.step import Context

Rows = NDArray[np.float32]


class Values:
    """All that flows by, one row a sample (n, d)."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.floating]] = []

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array (batch, ...). Raises ValueError on NaN or infinity."""
        if not np.isfinite(values).all():
            raise ValueError("the activations hold NaN or infinity")
        self.rows.append(values.reshape(len(values), -1))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All rows."""
        return {"rows": np.concatenate(self.rows).astype(np.float64)}

    @classmethod
    def restored(cls, state: dict[str, NDArray[np.float64]]) -> Values:
        """The rows that had this state."""
        made = cls()
        made.rows = [state["rows"]]
        return made


def outputs(tower: Tower, context: Context) -> Rows:
    """The tower's output for every sample, (n, d). Raises UsageError where it is not finite."""
    return np.concatenate(watch_values(tower, [tower.output], context, Values)[tower.output].rows).astype(np.float32)


def distance(before: Rows, after: Rows) -> float:
    """Relative error of rows (n, d) whose mean is no news: |after - before| over |before - mean|.

    1 is what the mean alone would give. Raises UsageError where all rows are the same, which shows nothing.
    """
    spread = float(np.square(before - before.mean(0)).sum())
    if not spread > 0:
        raise UsageError(
            "every calibration sample has the same output: nothing can be told from it", "data.calibration"
        )
    return float(np.sqrt(np.square(after - before).sum() / spread))
