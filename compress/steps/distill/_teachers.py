"""Where a teacher can run on its own: in a child on the CPU, or on the device that the process trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.core.progress import Progress
from compress.data import child
from compress.data.child import Limits
from compress.models.differentiable import DifferentiableTower
from compress.models.external_data import APART, save
from compress.models.tower import Tower
from compress.steps.distill import _teacher
from compress.steps.distill._chunk import Chunk

Feed = Mapping[str, NDArray[Any]]


class Teacher(Protocol):
    """A tower that is asked. `blocks` names what is wanted beside its embedding.

    Where it is `together`, every process calls `say` as often and in the same order as all others, with feeds or none.
    """

    tower: Tower
    blocks: tuple[str, ...]
    together: ClassVar[bool]

    def say(self, feeds: Sequence[Feed], out: Path, progress: Progress) -> None:
        """Write what it says of batches of inputs to an empty folder; see `Chunk`. Nothing is written of none."""
        ...

    def rest(self) -> None:
        """Give its memory back, unless it was asked something since it last rested."""
        ...


@dataclass
class InChild:
    """ONNX Runtime on the CPU, in a child that ends when it has answered."""

    tower: Tower
    blocks: tuple[str, ...]
    together: ClassVar[bool] = False

    def say(self, feeds: Sequence[Feed], out: Path, progress: Progress) -> None:
        """Let the child write to `out`; what it reads lies beside that."""
        scratch, paths = out.parent, []
        save(self.tower.graph, scratch / "graph.onnx", APART, self.blocks)
        for at, feed in enumerate(feeds):
            paths.append(str(scratch / f"feed{at}.npz"))
            np.savez(paths[-1], **{name: feed[name] for name in self.tower.inputs})  # type: ignore[arg-type]
        request = {
            "graph": str(scratch / "graph.onnx"),
            "tower": self.tower.kind,
            "inputs": list(self.tower.inputs),
            "values": [self.tower.output, *self.blocks],
            "feeds": paths,
            "out": str(out),
        }
        child.run(_teacher.__name__, request, Limits.of_machine(), progress, asking(self.tower))

    def rest(self) -> None:
        """Nothing is held."""


@dataclass
class OnDevice:
    """The whole tower in torch, on one device, from the first question on."""

    tower: Tower
    blocks: tuple[str, ...]
    device: torch.device
    together: ClassVar[bool] = False
    _module: DifferentiableTower | None = field(default=None, init=False, repr=False)
    _asked: bool = field(default=False, init=False, repr=False)

    def say(self, feeds: Sequence[Feed], out: Path, progress: Progress) -> None:
        """Compute and write batch by batch."""
        self._asked = True
        if self._module is None:
            module = DifferentiableTower(self.tower, self.blocks).requires_grad_(False)
            self._module = module.to(self.device)
        chunk = Chunk.of(out, self.tower.kind, shapes(self.tower, feeds))
        for feed in progress.track(feeds, asking(self.tower), len(feeds)):
            with exact():
                said = self._module(on(self.device, self.tower, feed))
            chunk.add([array(said[name]) for name in (self.tower.output, *self.blocks)])
        chunk.close()

    def rest(self) -> None:
        """The weights go where nothing was asked."""
        if not self._asked:
            self._module = None
        self._asked = False


@contextmanager
def exact() -> Iterator[None]:
    """No gradients, and float32 as it is: cuDNN would round convolutions to TF32, and the store is for all teachers."""
    cudnn = torch.backends.cudnn
    with torch.no_grad(), cudnn.flags(cudnn.enabled, cudnn.benchmark, allow_tf32=False):
        yield


def asking(tower: Tower) -> str:
    """What is shown while a teacher is asked."""
    return f"ask the teacher ({tower.kind})"


def shapes(tower: Tower, feeds: Sequence[Feed]) -> list[tuple[int, ...]]:
    """Of each batch's first input."""
    return [feed[tower.inputs[0]].shape for feed in feeds]


def on(device: torch.device, tower: Tower, feed: Feed) -> dict[str, Tensor]:
    """A tower's inputs as tensors on a device."""
    return {name: torch.from_numpy(np.ascontiguousarray(feed[name])).to(device) for name in tower.inputs}


def array(value: Tensor) -> NDArray[np.float32]:
    """A value as an array in memory."""
    return value.to("cpu", torch.float32).numpy()
