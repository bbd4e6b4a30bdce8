"""Models larger than memory: whether one is streamed, and an encoder whose weights stay in their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from compress.core.errors import UsageError
from compress.models import reference
from compress.models.shards import Shards, open_shards
from compress.models.source import WEIGHTS
from compress.models.structure import Structure

if TYPE_CHECKING:
    from compress.models.families.family import Family
    from compress.models.tower import Tower

SHARE: Final = 0.2
"""Of the memory that is available, what a model's float32 weights may take to be loaded: loading and exporting hold
them up to five times."""

_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


class Asked(Protocol):
    """The part of a recipe's `model:` that decides."""

    @property
    def streaming(self) -> bool | None: ...


def shards_of(folder: Path, asked: Asked, pruned: Structure | None = None) -> Shards | None:
    """The shards of a model that is to be streamed; None where it is to be loaded.

    Not asked for, that is decided by memory. Raises UsageError where it is asked for and cannot be.
    """
    if asked.streaming is False:
        return None
    there = any((folder / name).is_file() for name in WEIGHTS)
    if asked.streaming is None and (pruned is not None or not there):
        return None
    if pruned is not None:
        raise UsageError(
            "a pruned model is not streamed", "model.streaming", "leave it out: it is small enough to load"
        )
    shards = open_shards(folder)
    if asked.streaming is None and 4 * shards.parameters <= SHARE * available_memory():
        return None
    return shards


def available_memory() -> int:
    """Bytes that this process may still take: what the system has, within the limit of a container."""
    told = Path("/proc/meminfo").read_text("ascii")
    available = int(told.split("MemAvailable:")[1].split()[0]) * 1024
    try:
        limit = _LIMIT.read_text("ascii").strip()
    except OSError:
        return available
    return min(available, int(limit)) if limit.isdigit() else available


def free_space(folder: Path) -> int:
    """Bytes that may still be written below a folder, which need not be there yet."""
    while not folder.exists():
        folder = folder.parent
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


def towers_of(
    architecture: str, folder: Path, family: Family, normalize: bool, shards: Shards
) -> tuple[dict[str, Tower], Any]:
    """The towers of a model folder with references for weights, and its config."""
    import transformers

    from compress.models.lazy_export import export_lazily, hollow

    made = getattr(transformers, architecture)
    try:
        config = made.config_class.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
        model = hollow(lambda: made(config))
        for each in (config, *(getattr(config, name) for name in config.sub_configs)):
            each.dtype = "float32"  # what the weights are computed in, as in a model that is loaded
    except Exception as error:  # transformers raises a dozen unrelated classes
        raise UsageError(f"transformers cannot make the model: {error}", str(folder)) from error
    return export_lazily(model, family, normalize, shards), config


def logit_scale(shards: Shards) -> float | None:
    """The scale of similarities, where the model has one."""
    place = shards.weights.get("logit_scale")
    return None if place is None else float(np.exp(reference.read(reference.tensor("logit_scale", place))))
