"""A teacher that no device holds: its weights lie cut over all processes, and are gathered a segment at a time.

FSDP2 (`fully_shard`) cuts and gathers; what is gathered is one segment of the graph. Weights are gathered and given
back by hand, not by the hooks of a forward pass: so a process that has nothing to ask, or has failed, still takes part
in every gathering and nobody waits for it, and integers stay on the CPU, where shapes are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from compress.core.errors import CompressError
from compress.core.progress import Progress
from compress.models.differentiable import DifferentiableTower
from compress.models.segments import Segment, segments
from compress.models.tower import Tower
from compress.steps.distill._chunk import Chunk
from compress.steps.distill._processes import Processes
from compress.steps.distill._teachers import Feed, array, asking, exact, on, shapes
from compress.steps.distill._trouble import Trouble
from compress.targets.graph.types import element_types


@dataclass(frozen=True, slots=True)
class Part:
    """One segment in torch; `weights` is the same module as FSDP sees it, which holds a process's share of them."""

    segment: Segment
    module: DifferentiableTower
    weights: FSDPModule


@dataclass
class Sharded:
    """One tower in all processes, each with its share of every segment's weights; all of them ask together."""

    tower: Tower
    blocks: tuple[str, ...]
    processes: Processes
    together: ClassVar[bool] = True
    parts: tuple[Part, ...] = field(default=(), init=False, repr=False)
    _asked: bool = field(default=False, init=False, repr=False)

    def say(self, feeds: Sequence[Feed], out: Path, progress: Progress) -> None:
        """Compute batch by batch, as often as the process with the most batches.

        Raises in all processes what is raised in one of them.
        """
        turns = max(self.processes.of_all(len(feeds)))
        if turns == 0:
            return
        self._asked, trouble = True, Trouble()
        if not self.parts:
            with trouble.kept():
                self.parts = tuple(_parts(self.tower, self.blocks, self.processes))
            trouble.share(self.processes)
        chunk = Chunk.of(out, self.tower.kind, shapes(self.tower, feeds))
        for turn in progress.track(range(turns), asking(self.tower), turns):
            self._turn(feeds[turn] if turn < len(feeds) else None, chunk, trouble)
        with trouble.kept():
            if feeds:
                chunk.close()
        trouble.share(self.processes)

    def rest(self) -> None:
        """The weights go where nobody asked anything; all processes agree on that."""
        if not self._asked:
            self.parts = ()
        self._asked = False

    def _turn(self, feed: Feed | None, chunk: Chunk, trouble: Trouble) -> None:
        """One batch through all segments; without one, or in trouble, the weights are gathered for the others alone."""
        wanted, said = (self.tower.output, *self.blocks), dict[str, Tensor]()
        values: dict[str, Tensor] = {}
        with trouble.kept():
            values = {} if feed is None else on(self.processes.device, self.tower, feed)
        for part in self.parts:
            part.weights.unshard()
            with trouble.kept(), exact():
                if feed is not None and trouble.first is None:
                    values |= part.module.forward(values)
                    said |= {name: values[name] for name in wanted if name in values}
                    values = {name: values[name] for name in part.segment.outputs}
            part.weights.reshard()
        with trouble.kept():
            if feed is not None and trouble.first is None:
                chunk.add([array(said[name]) for name in wanted])


def _parts(tower: Tower, blocks: Sequence[str], processes: Processes) -> Iterator[Part]:
    """The segments one after the other, so that one of them is whole at a time."""
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    types, left = element_types(tower.graph), dict.fromkeys(blocks)
    for segment in segments(tower.graph, tower.sites):
        graph = segment.graph(tower.graph, types)
        inside = {name for node in graph.graph.node for name in node.output}
        found = [name for name in left if name in inside]
        for name in found:
            del left[name]
        made = tuple(dict.fromkeys((*segment.made, *found)))
        cut = Tower(tower.kind, graph, (), segment.inputs, made[0])
        module = DifferentiableTower(cut, made[1:]).requires_grad_(False)
        weights = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.integers_to_cpu()  # FSDP has moved everything to the device
        yield Part(segment, module, weights)
    if left:
        raise CompressError(f"no segment of the {tower.kind} tower computes {next(iter(left))!r}")
