"""What every training step does: open the towers in torch, train them, put the weights back, report."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray

from compress.core import launched
from compress.core.errors import CompressError, UsageError
from compress.models.graph import array, initializers
from compress.models.tower import Encoder, Tower
from compress.steps.distill._options import Training
from compress.steps.distill._processes import Processes, leave_at_exit
from compress.steps.distill._setup import Hooks, Settle, Setup
from compress.steps.distill._state import Position, States
from compress.steps.distill._student import put_back
from compress.steps.distill._tracking import opened, require
from compress.steps.distill._training import Loop
from compress.steps.step import Context, Curve, SiteReport, StepReport

Weights = Mapping[str, NDArray[np.float32]]
_POINTS: Final = 400
"""Points of a curve that a report can show."""


def distill(use: str, encoder: Encoder, spec: Training, context: Context) -> StepReport:
    """Train float towers towards the teacher, in place."""
    for kind in spec.towers:
        if kind in encoder.towers and encoder.towers[kind].treatments:
            hint = "distill before quantizing; distill.qad trains what is quantized"
            raise UsageError(f"the {kind} tower is quantized already", "steps", hint)
    return trained(use, encoder, spec, context, {}, lambda _: None)


def trained(use: str, encoder: Encoder, spec: Training, context: Context, hooks: Hooks, settle: Settle) -> StepReport:
    """Train the chosen towers towards the teacher, in place; `hooks` stand before nodes, by tower kind.

    `settle` makes of an encoder with trained weights what the step will leave: gates look at that.
    """
    require(spec.tracker)
    setup = Setup.of(encoder, spec, context, settle)
    before = {kind: _weights(encoder.towers[kind]) for kind in setup.kinds}
    accelerator = _accelerator(spec)
    processes = Processes(accelerator.process_index, accelerator.num_processes, accelerator.device)
    with _folder(context.cache) as cache:
        work = setup.work(hooks, processes, cache)
        states = None if context.work is None else States(context.work, setup.follows(use))
        with contextlib.closing(opened(spec.tracker, _name(use, context), cache.parent / "runs")) as track:
            position = Loop(work, accelerator, replace(context, track=track), states).run()
        student = work.student.cpu()
    put_back(encoder, student)
    rows = [row for kind in setup.kinds for row in _rows(encoder.towers[kind], before[kind])]
    watched = work.watches
    return StepReport(use, _summary(spec, position, watched), tuple(rows), curves=_curves(position, watched))


def _name(use: str, context: Context) -> str:
    """What a tracker calls the run: `int4_clip_qad-step1` where the step has a folder of its own."""
    if context.work is None:
        return use
    return f"{context.work.parent.name.strip('.').removesuffix('.checkpoint')}-{context.work.name}"


def _accelerator(spec: Training) -> Accelerator:
    AcceleratorState._reset_state()  # the step before may have asked for another precision
    alike = DistributedDataParallelKwargs(broadcast_buffers=False)  # they are the same in all processes
    asked = launched.count()
    without_gpu = asked > 1 and not torch.cuda.is_available()  # unless told so, each would take itself for the only one
    made = Accelerator(cpu=without_gpu, mixed_precision=spec.precision, kwargs_handlers=[alike])
    if made.num_processes != asked:
        hint = "launch with accelerate launch --multi_gpu, or with torchrun"
        raise CompressError(f"{asked} processes were started, and this one sees {made.num_processes}", "launch", hint)
    if asked > 1:
        leave_at_exit()
    return made


@contextlib.contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    """Where the teacher's features are kept: in the cache, or for this step only."""
    if cache is not None:
        yield cache.resolve() / "features"  # the child that runs the teacher works in another folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _weights(tower: Tower) -> Weights:
    held = initializers(tower.graph)
    return {site.name: array(held[site.weight]).astype(np.float32) for site in tower.sites}


def _rows(tower: Tower, before: Weights) -> Iterator[SiteReport]:
    """What was trained: how far each weight went from where it was."""
    held = initializers(tower.graph)
    for site in tower.sites:
        old, new = before[site.name], array(held[site.weight]).astype(np.float32)
        if not np.array_equal(old, new):
            moved = float(np.linalg.norm(new - old) / np.linalg.norm(old))
            yield SiteReport(tower.kind, site.name, site.role, "trained", old.nbytes, new.nbytes, moved)


def _summary(spec: Training, position: Position, watched: str) -> str:
    """`features 1, hidden 1: 320 steps of 64, loss 0.2113 to 0.0420, held-out loss 0.0431`."""
    losses = position.losses
    ends = f"loss {np.mean(losses[:10]):.4f} to {np.mean(losses[-10:]):.4f}" if losses else "no step"
    held = f", {watched} {position.watched[-1][1]:.4f}" if position.watched else ""
    spent = f" in {position.seconds:.0f} s" if spec.seconds is not None else ""
    return f"{spec.losses.told}: {position.steps:,} steps of {spec.batch}{spent}, {ends}{held}"


def _curves(position: Position, watched: str) -> tuple[Curve, ...]:
    """The loss, averaged over as many steps as a point stands for, and the value that watches."""
    width = max(1, -(-len(position.losses) // _POINTS))
    starts = range(0, len(position.losses), width)
    loss = tuple(float(np.mean(position.losses[at : at + width])) for at in starts)
    made = [Curve("loss", tuple(starts), loss)]
    if position.watched:
        made.append(Curve(watched, *(tuple(each) for each in zip(*position.watched, strict=True))))
    return tuple(made)
