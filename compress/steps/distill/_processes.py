"""The processes that train together: one, or as many as `accelerate launch` started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from compress.data.training import Share

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among all, and the device that it trains on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def share(self) -> Share:
        """Its part of every batch."""
        return Share(self.rank, self.world)

    @property
    def main(self) -> bool:
        """Whether it writes what is written once."""
        return self.rank == 0

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; gradients flow back to each."""
        if self.world == 1:
            return rows
        if not rows.requires_grad:
            held = [torch.empty_like(rows) for _ in range(self.world)]
            dist.all_gather(held, rows.contiguous())
            return torch.cat(held)
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(rows.contiguous()))

    def mean(self, value: float) -> float:
        """A number, averaged over the processes."""
        return self._reduced(value, dist.ReduceOp.SUM) / self.world if self.world > 1 else value

    def told(self, value: Any) -> Any:
        """What the first process says."""
        if self.world == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def of_all(self, value: T) -> list[T]:
        """What each process says, in the order of their ranks."""
        if self.world == 1:
            return [value]
        held: list[Any] = [None] * self.world
        dist.all_gather_object(held, value)
        return held

    def _reduced(self, value: float, how: Any) -> float:
        held = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(held, how)
        return float(held)
