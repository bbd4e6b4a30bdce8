"""The loop: batches, gradients, an optimizer under a cosine, checkpoints, and a value on other data that watches."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from compress.core.errors import UsageError
from compress.data.training import TrainingBatch, TrainingSet
from compress.steps.distill._batches import ask, parts, windows
from compress.steps.distill._objective import Objective
from compress.steps.distill._optimizer import optimizer_of
from compress.steps.distill._options import EPOCHS, Training
from compress.steps.distill._state import Position, States, restore
from compress.steps.step import Context

LOOKS: Final = 20
"""How often the value that watches is looked at in a training."""

_WINDOW: Final = 1024
"""Samples that are prepared at once, so that the teacher is started once for them."""

_LONGEST: Final = 1.0
"""Length that gradients are cut to."""

_LAST: Final = 0.01
"""The rate in the end, as a share of the highest."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is trained on what, towards what; `held` are batches that only watch, and what is computed of them.

    `gates` says what the towers as they are now lose of what the policy protects; None where nobody asks.
    """

    student: nn.Module
    objective: Objective
    data: TrainingSet
    held: tuple[TrainingSet, Objective] | None
    spec: Training
    gates: Callable[[], float] | None = None

    @property
    def watches(self) -> str:
        """What is looked at now and then, as curves call it."""
        return "gate loss, development" if self.gates is not None else "held-out loss"


@dataclass
class Loop:
    """One training from its start, or from its last checkpoint, to its end."""

    work: Work
    accelerator: Accelerator
    context: Context
    states: States | None = None
    position: Position = field(default_factory=Position)
    _best: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _watching: list[TrainingBatch] | None = field(default=None, init=False, repr=False)

    def run(self) -> Position:
        """Train. Raises UsageError where the loss is no number any more; the last checkpoint stays."""
        student, spec = self.work.student, self.work.spec
        self._plain = optimizer_of(student, spec)
        self._resume()
        self._model, self._optimizer = self.accelerator.prepare(student, self._plain)
        self._total, self._before = self._steps(), self.position.seconds
        self._started = self._saved = time.monotonic()
        units = self._total if self._total is not None else math.ceil(spec.seconds or 0)
        for _ in self.context.progress.track(self._units(), "distill", units, self._now):
            pass
        if spec.patience and self._best:
            student.load_state_dict(self._best)
        return self.position

    def _steps(self) -> int | None:
        """Steps of the whole training; None where time decides."""
        spec = self.work.spec
        if spec.seconds is not None or spec.steps is not None:
            return spec.steps
        if self.work.data.streamed:
            raise UsageError("a stream has no epochs of known length", "epochs", "give `steps` or `seconds`")
        return max(1, round((spec.epochs or EPOCHS) * (self.work.data.steps(spec.batch) or 1)))

    def _units(self) -> Iterator[None]:
        """The training; yields for each step, or for each second where time decides."""
        shown = 0
        share = self._share()
        looked = int(share * LOOKS)
        batches = self._batches()
        while share < 1:
            self._step(next(batches), share)
            share = self._share()
            if int(share * LOOKS) > looked:
                looked = int(share * LOOKS)
                if self._look():
                    return
            self._keep()
            done = self.position.steps if self._total is not None else int(self.position.seconds)
            yield from [None] * (done - shown)
            shown = done

    def _share(self) -> float:
        """How much of the training is done, 0 to 1; all processes agree."""
        self.position.seconds = self._before + time.monotonic() - self._started
        if self._total is not None:
            return self.position.steps / self._total
        mine = self.position.seconds / (self.work.spec.seconds or 1.0)
        return float(self.work.objective.processes.told(mine))

    def _batches(self) -> Iterator[TrainingBatch]:
        """Batches, epoch after epoch, and the teacher knows every sample of them."""
        processes, spec, at = self.work.objective.processes, self.work.spec, self.position
        while True:
            made = self.work.data.batches(at.epoch, spec.batch, processes.share, at.batch)
            left = _WINDOW if self._total is None else self._total - at.steps
            for window in windows(made, max(1, min(left, _WINDOW // spec.batch))):
                ask(window, self.work.objective.features)
                for batch in window:
                    at.batch += 1
                    yield batch
            at.epoch, at.batch = at.epoch + 1, 0
            for features in self.work.objective.features.values():
                features.turn()

    def _step(self, batch: TrainingBatch, share: float) -> None:
        spec, total = self.work.spec, 0.0
        for group in self._optimizer.param_groups:
            group["lr"] = spec.rate * schedule(share, spec.warmup)
        pieces = parts(batch, spec.accumulate)
        for at, part in enumerate(pieces):
            last = at == len(pieces) - 1  # processes exchange gradients after the last part alone
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self._model):
                loss, _ = self._loss(self._model, part, self.work.objective)
                total += float(loss.detach()) / len(pieces)
                self.accelerator.backward(loss / len(pieces))
        mean = self.work.objective.processes.mean(total)
        self._require_finite(mean)
        self.accelerator.clip_grad_norm_(self._model.parameters(), _LONGEST)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.position.losses.append(mean)
        self.position.steps += 1
        if self.context.track is not None and self.work.objective.processes.main:
            self.context.track(self.position.steps, {"loss": mean})

    def _loss(
        self, model: nn.Module, batch: TrainingBatch, objective: Objective
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        feeds = {
            kind: {name: torch.from_numpy(value).to(self.accelerator.device) for name, value in feed.items()}
            for kind, feed in batch.feeds.items()
            if kind in objective.goals
        }
        return objective(model(feeds), batch)

    def _require_finite(self, value: float) -> None:
        if math.isfinite(value):
            return
        kept = self.states.newest() if self.states is not None else None
        held = f"; the checkpoint after step {kept} is kept" if kept is not None else ""
        raise UsageError(
            f"the loss is {value} at step {self.position.steps + 1}{held}",
            "rate",
            "use a smaller `rate`, a longer `warmup`, or `precision: no`",
        )

    def _look(self) -> bool:
        """Look at the value that watches; returns whether training should end, because it gets no better."""
        if self.work.held is None and self.work.gates is None:
            return False
        processes = self.work.objective.processes
        self._prepare()
        loss = float(processes.told(self._watched() if processes.main else None))
        at, spec = self.position, self.work.spec
        at.watched.append((at.steps, loss))
        if self.context.track is not None and processes.main:
            self.context.track(at.steps, {self.work.watches: loss})
        if at.best is None or loss < at.best:
            at.best, at.waiting = loss, 0
            if spec.patience:
                self._best = {name: value.detach().clone() for name, value in self.work.student.state_dict().items()}
            return False
        at.waiting += 1
        if not spec.patience or at.waiting < spec.patience:
            return False
        self.context.progress.say(f"the {self.work.watches} got no better {at.waiting} times: training ends")
        return True

    def _prepare(self) -> None:
        """Have the teacher look at what is held out, before the first look; the first process alone needs to know.

        The others ask nothing, but they take part where a teacher is asked together.
        """
        if self.work.held is None or self._watching is not None:
            return
        data, objective = self.work.held
        main = self.work.objective.processes.main
        self._watching = list(data.batches(0, min(self.work.spec.batch, len(data)))) if main else []
        ask(self._watching, objective.features)

    def _watched(self) -> float:
        """What the gates lose on development data, or the loss on all samples that are held out."""
        if self.work.gates is not None:
            return self.work.gates()
        _, objective = self.work.held  # type: ignore[misc]
        with torch.no_grad():
            made = [float(self._loss(self.work.student, batch, objective)[0]) for batch in self._watching or ()]
        return float(np.mean(made))

    def _keep(self) -> None:
        """Write a checkpoint when it is time."""
        due = time.monotonic() - self._saved >= 60 * self.work.spec.checkpoint_minutes
        if due and self.states is not None and self.work.objective.processes.main:
            self.states.write(self.work.student, self._plain, self._best, self.position)
            self._saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one and the run is to be resumed; all processes the same."""
        processes = self.work.objective.processes
        if self.states is None or not self.context.resume:
            return
        found = processes.told(self.states.read(self.context.progress) if processes.main else None)
        if found is None:
            return
        tensors, self.position = found
        self._best = restore(self.work.student, self._plain, tensors)
        self.context.progress.say(f"resumed after {self.position.steps} steps of training")

    def _now(self) -> str:
        recent = self.position.losses[-20:]
        return f"loss {np.mean(recent):.4f}" if recent else ""


def schedule(share: float, warmup: float) -> float:
    """The learning rate as a share of the highest: up in a line, then down as half a cosine."""
    if share < warmup:
        return (share + _LAST * warmup) / (warmup + _LAST * warmup)
    fallen = min((share - warmup) / (1 - warmup), 1.0)
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * fallen)) / 2
