"""Which teacher runs where: as a step asks for it, or where it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.models.differentiable import unknown
from compress.models.graph import parameter_count
from compress.models.tower import Tower
from compress.steps.distill._options import Where
from compress.steps.distill._processes import Processes
from compress.steps.distill._teachers import InChild, OnDevice, Teacher

Asked = Mapping[str, tuple[Tower, tuple[str, ...]]]
"""Towers that are asked, by kind, and what of their blocks is wanted."""

_ROOM: Final = 0.5
"""Share of the free memory that a teacher may take: student, moments and activations come on top."""

_FLOAT: Final = 4
"""Bytes of a weight: teachers compute in float32, or what they say would depend on where they run."""


def placed(where: Where, asked: Asked, processes: Processes, progress: Progress) -> dict[str, Teacher]:
    """The teachers by kind, all of them in the same place; the same in all processes.

    Left to `auto`, one that torch cannot run is run by a child. Raises UsageError for a place that cannot be.
    """
    if where == "sharded" and processes.world == 1:
        hint = "start several processes with accelerate launch, or use teacher: device"
        raise UsageError("one process has nobody to share a teacher's weights with", "teacher", hint)
    chosen = _fitting([tower for tower, _ in asked.values()], processes) if where == "auto" else where
    if where == "auto" and chosen != "child":
        progress.say(f"the teacher runs {'on the device' if chosen == 'device' else 'in shares on all devices'}")
    made: dict[str, Teacher] = {}
    for kind, (tower, blocks) in asked.items():
        if chosen != "child" and (left := unknown(tower.graph)):
            if where != "auto":
                raise UsageError(f"torch cannot run a {kind} tower with {', '.join(left)}", "teacher", "use child")
            made[kind] = InChild(tower, blocks)
        else:
            made[kind] = _at(chosen, tower, blocks, processes)
    return made


def _at(where: Where, tower: Tower, blocks: tuple[str, ...], processes: Processes) -> Teacher:
    if where == "child":
        return InChild(tower, blocks)
    if where == "device":
        return OnDevice(tower, blocks, processes.device)
    from compress.steps.distill._sharded import Sharded  # here, because others need none of FSDP

    return Sharded(tower, blocks, processes)


def _fitting(towers: list[Tower], processes: Processes) -> Where:
    """A child for a CPU; on CUDA the whole teacher where it fits each device, else shares of it, else a child."""
    if processes.device.type != "cuda":
        return "child"
    needed = _FLOAT * sum(parameter_count(tower.graph) for tower in towers)
    room = _ROOM * torch.cuda.mem_get_info(processes.device)[0]
    if all(processes.of_all(needed < room)):
        return "device"
    if processes.world > 1 and all(processes.of_all(needed / processes.world < room)):
        return "sharded"
    return "child"
