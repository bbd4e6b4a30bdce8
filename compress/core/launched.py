"""How many processes were launched together, and which one this is: as launchers tell it in the environment."""

from __future__ import annotations

import os
from typing import Final

RANKS: Final = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""As torchrun and `accelerate launch`, Intel MPI, Open MPI and MVAPICH name them."""


def rank() -> int:
    """The place of this process among all; 0 is the one that writes."""
    return _told(RANKS, 0)


def count() -> int:
    """Processes that were launched together."""
    return _told(SIZES, 1)


def only_one_came() -> bool:
    """Whether `accelerate launch` was asked for several processes and started one, as it does without a GPU."""
    asked = "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ
    return asked and not any(name in os.environ for name in RANKS)


def _told(names: tuple[str, ...], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if name in os.environ), otherwise)
