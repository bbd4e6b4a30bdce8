"""Calibrating block by block: what a product reads in the tower as it stands, and what it should add to the stream.

After each junction the caller may change the tower; what comes later is calibrated on what comes out of that. The
target of a product is what the tower computed there before the walk began, less what the stream holds already, so that
a layer also makes up for what the layers before it lost. Values between blocks are kept in files: the time is linear in
the depth, and no second copy of the model is held.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Limits
from compress.models.external_data import APART, save
from compress.models.junctions import Junction, junction, part
from compress.models.surgery import linear
from compress.models.tower import Tower
from compress.steps._activations import stored
from compress.steps._moments import JointMoments, Matrix, Moments
from compress.steps._sensitivity import Sensitivity, sensitivity
from compress.steps.step import Context


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A junction with moments of what it reads and should give, in two halves of the samples: to fit, and to judge.

    `silent` are those of tokens from which nothing reaches the embedding, as of all but the pooled one in a last block.
    `unknown` are operators without a gradient, which is why tokens count alike. The moments are there until the walk is
    asked for the next.
    """

    junction: Junction
    train: JointMoments
    held_out: JointMoments
    silent: tuple[JointMoments, JointMoments]
    unknown: tuple[str, ...] = ()

    @property
    def rows(self) -> float:
        """Tokens of all samples, silent ones among them."""
        return sum(each.rows for each in (self.train, self.held_out, *self.silent))

    def moments(self, silent: float = 0.0) -> JointMoments:
        """Of all samples; silent tokens count as much as `silent` says."""
        return JointMoments.summed(self._parts(silent))

    def inputs(self, silent: float = 0.0) -> Moments:
        """Of what the product reads alone, of all samples."""
        return Moments.summed((weight, each.inputs) for weight, each in self._parts(silent))

    def _parts(self, silent: float) -> list[tuple[float, JointMoments]]:
        return [(1, self.train), (1, self.held_out), *((silent, each) for each in self.silent)]

    def kept(self, keep: NDArray[np.intp]) -> Calibrated:
        """The same with some of what the product reads; those of all of it are used up, where fewer stay."""
        halves = (self.train, self.held_out, *self.silent)
        if len(keep) == max(len(each.inputs.total) for each in halves):
            return self
        made = []
        for each in halves:
            made.append(each.kept(keep))
            each.clear()
        return Calibrated(self.junction, made[0], made[1], (made[2], made[3]), self.unknown)

    def mapped(self, matrix: Matrix) -> Calibrated:
        """The same with M x in place of what the product reads."""
        halves = (self.train, self.held_out, *self.silent)
        train, held_out, *silent = (each.mapped(matrix) for each in halves)
        return Calibrated(self.junction, train, held_out, (silent[0], silent[1]), self.unknown)

    def training(self, silent: float = 0.0) -> JointMoments:
        """Of the samples that are fitted to."""
        return JointMoments.summed([(1, self.train), (silent, self.silent[0])])


Tokens = Literal["by_gradient", "alike"]

ENDS: Final = ("attn.out", "mlp.fc2")

_NONE: Final = {"residual": None, "joined": None}

HALVES: Final = ("train", "held", "silent_train", "silent_held")


def walk(
    tower: Tower,
    junctions: Sequence[Junction],
    context: Context,
    tokens: Tokens = "by_gradient",
    was: onnx.ModelProto | None = None,
) -> Iterator[Calibrated]:
    """The junctions in the order of the graph, each calibrated on the tower as it stands when its turn comes.

    `was` is the graph that targets are computed by, where the tower was changed before the walk began; that of the
    context's `whole` where it is not given.
    """
    if context.feeds is None:
        raise UsageError(
            "this step needs calibration data", "data.calibration", "add data: {calibration: {source: ...}}"
        )
    stream, was = _apart(tower, junctions), was or context.whole.get(tower.kind)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        feeds = stored(tower, context, folder)
        weights = Sensitivity(())
        if tokens == "by_gradient":
            weights = _weighed(tower, was or tower.graph, junctions, feeds, context)
        before: Junction | None = None
        for each in junctions:
            request = _request(tower, each, before, stream, folder) | {"feeds": feeds, "sensed": list(weights.files)}
            if stream:
                known = [*tower.inputs, *([before.joined] if before else [])]
                save(part(was or tower.graph, known, [each.joined]), folder / "was.onnx", APART)
            last = not weights.files and each is junctions[-1]
            rest = part(tower.graph, [*tower.inputs, each.joined], [tower.output]) if last else None
            if stream and rest is not None and not _mixes(tower, rest):
                save(rest, folder / "rest.onnx", APART)
                request["output"] = tower.output
            what = f"calibrate {tower.kind} {each.site.layer}"
            child.run("compress.steps.follower", request, Limits.of_machine(), context.progress, what)
            train, held_out, *silent = (_read(tower, each, folder / name, stream) for name in HALVES)
            yield Calibrated(each, train, held_out, (silent[0], silent[1]), weights.unknown)
            for moments in (train, held_out, *silent):
                moments.clear()  # whoever asked may still hold them, and the next child needs the memory
            before = each


def _weighed(
    tower: Tower, graph: onnx.ModelProto, junctions: Sequence[Junction], feeds: Sequence[str], context: Context
) -> Sensitivity:
    """The weights of tokens at these junctions; for a search, at all places of the tower where a branch ends."""
    searched = tower.sites if context.memory is not None else ()
    ends = [junction(tower, site).joined for site in searched if site.role in ENDS]
    inside = {name for node in graph.graph.node for name in node.output}
    wanted = inside.intersection((*(each.joined for each in junctions), *ends))
    return sensitivity(tower, graph, sorted(wanted), feeds, context)


def _mixes(tower: Tower, rest: onnx.ModelProto) -> bool:
    """Whether attention is left in a part of the graph: then every token is heard, and to find out would take long."""
    attended = {site.node for site in tower.sites if site.role.startswith("attn.")}
    return any(node.name in attended for node in rest.graph.node)


def _apart(tower: Tower, junctions: Sequence[Junction]) -> bool:
    """Whether every junction joins one stream, so that what lies between two can be computed from the first."""
    if any(each.residual is None for each in junctions):
        return False
    earlier: set[str] = set()
    for before, after in pairwise(junctions):
        earlier.add(before.site.node)
        between = part(tower.graph, [*tower.inputs, before.joined], [after.joined])
        if any(node.name in earlier for node in between.graph.node):
            return False
    return True


def _request(tower: Tower, now: Junction, before: Junction | None, stream: bool, folder: Path) -> dict[str, Any]:
    """What the child has to run; only parts of the graph, from what the run before it has kept."""
    wanted = [now.inner, now.residual] if stream else [now.inner]
    known = [*tower.inputs, *([before.residual] if before and stream else [])]
    save(part(tower.graph, known, wanted), folder / "now.onnx", APART)  # type: ignore[arg-type]
    return {
        "tower": tower.kind,
        "folder": str(folder),
        "inputs": list(tower.inputs),
        "mask": tower.inputs[1] if len(tower.inputs) > 1 else None,
        "inner": now.inner,
        "residual": now.residual if stream else None,
        "joined": now.joined,
        "before": {"residual": before.residual, "joined": before.joined} if before and stream else _NONE,
        "halves": HALVES,
    }


def _read(tower: Tower, now: Junction, path: Path, stream: bool) -> JointMoments:
    state = {file.stem: np.load(file, allow_pickle=False) for file in path.glob("*.npy")}
    if stream:
        return JointMoments.restored(state)
    weight, bias = (each.astype(np.float64) for each in linear(tower, now.site))
    return JointMoments.of_product(Moments.restored(state), weight, bias)
