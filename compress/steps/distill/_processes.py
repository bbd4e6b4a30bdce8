"""The processes that train together: one, or as many as `accelerate launch` started."""

from __future__ import annotations

import atexit
import gc
import sys
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from compress.data.training import Share

T = TypeVar("T")


def leave() -> None:
    """End the threads that carry values between processes; nothing may be exchanged after it.

    Left to the end of the interpreter, such a thread may let go of a tensor when Python is no more, and abort a process
    that has done all its work (pytorch/pytorch#190489). What still refers to the group would keep them: garbage goes
    first, and what DTensor remembers of the layouts that FSDP asked for.
    """
    if "torch.distributed.tensor" in sys.modules:
        from torch.distributed.tensor import debug

        getattr(debug, "_clear_sharding_prop_cache", lambda: None)()  # older torch has none, and keeps its threads
    gc.collect()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def leave_at_exit() -> None:
    """`leave` once, when the interpreter begins to end; asking again changes nothing."""
    atexit.unregister(leave)
    atexit.register(leave)


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
