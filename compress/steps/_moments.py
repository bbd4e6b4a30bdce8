"""Second moments of what flows into a product: what compensating methods know of their inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Sums over rows x of an input (..., d): `gram` of x x^T (d, d), `total` of x (d,), and `rows`, all in float64."""

    def __init__(self) -> None:
        self.gram: NDArray[np.float64] = np.zeros((0, 0))
        self.total: NDArray[np.float64] = np.zeros(0)
        self.rows = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array whose last axis is the input of the product. Raises ValueError on NaN or infinity."""
        flat = values.reshape(-1, values.shape[-1])
        gram = (flat.T @ flat).astype(np.float64)
        if not np.isfinite(gram).all():
            raise ValueError("the activations hold NaN or infinity")
        if not self.rows:
            self.gram, self.total = np.zeros_like(gram), np.zeros(len(gram))
        self.gram += gram
        self.total += flat.sum(0, dtype=np.float64)
        self.rows += len(flat)

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All sums."""
        return {"gram": self.gram, "total": self.total, "rows": np.array(float(self.rows))}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[np.float64]]) -> Moments:
        """The moments that had this state."""
        made = cls()
        made.gram, made.total, made.rows = state["gram"], state["total"], int(state["rows"])
        return made
