"""The largest magnitude that flows by: what half precision has to hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Largest:
    """The largest finite |x|. An infinity is one in half precision as well: masks of attention are made of them."""

    def __init__(self) -> None:
        self.largest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array of any shape. Raises ValueError on NaN."""
        if np.isnan(values).any():
            raise ValueError("the activations hold NaN")
        magnitudes = np.abs(values)
        self.largest = max(self.largest, float(magnitudes.max(initial=0.0, where=np.isfinite(magnitudes))))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The largest magnitude."""
        return {"largest": np.array(self.largest)}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Largest:
        """The observer that had this state."""
        made = cls()
        made.largest = float(state["largest"])
        return made
