"""The weighted sum of losses of one batch, computed from what the student made and what the teacher said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.data.training import TrainingBatch
from compress.steps.distill import _losses
from compress.steps.distill._blocks import Pair
from compress.steps.distill._features import Features, Said
from compress.steps.distill._options import Losses
from compress.steps.distill._processes import Processes
from compress.steps.distill._student import Values


@dataclass(frozen=True, slots=True)
class Goal:
    """Of one tower under training: its output, its blocks beside the teacher's, its mask, and the bank, if any."""

    output: str
    pairs: tuple[Pair, ...]
    mask: str | None
    bank: Tensor | None


@dataclass(frozen=True, slots=True)
class Objective:
    """What is computed of each batch. `features` are the teacher's, by tower kind, of towers not trained as well."""

    losses: Losses
    goals: Mapping[str, Goal]
    features: Mapping[str, Features]
    normalized: bool
    scale: float
    temperature: float
    processes: Processes

    def __call__(self, made: Values, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each loss by name; means over the samples of this process."""
        said = {
            kind: features.get(batch.keys[batch.rows[kind]])
            for kind, features in self.features.items()
            if kind in batch.rows
        }
        parts: dict[str, list[Tensor]] = {}
        for kind in made:
            for name, value in self._of_tower(kind, made, said[kind], batch).items():
                parts.setdefault(name, []).append(value)
        told = {name: torch.stack(values).mean() for name, values in parts.items()}
        told |= self._of_pairs(made, said, batch)
        weights = self.losses.model_dump()
        return torch.stack([weights[name] * value for name, value in told.items()]).sum(), told

    def _of_tower(self, kind: str, made: Values, said: Said, batch: TrainingBatch) -> dict[str, Tensor]:
        goal = self.goals[kind]
        student = made[kind][goal.output]
        teacher = _like(said.embeddings, student)
        found = {}
        if self.losses.features:
            found["features"] = _losses.features(student, teacher, self.normalized)
        if self.losses.hidden and goal.pairs:
            own = [made[kind][pair.student] for pair in goal.pairs]
            other = [_fitted(_like(each, student), own[0].shape[1]) for each in said.blocks]
            found["hidden"] = _losses.hidden(own, other, _counted(said, batch.feeds[kind].get(goal.mask or ""), own[0]))
        if self.losses.bank and goal.bank is not None:
            found["bank"] = _losses.bank(student, teacher, goal.bank.to(student), self.temperature)
        return found

    def _of_pairs(self, made: Values, said: Mapping[str, Said], batch: TrainingBatch) -> dict[str, Tensor]:
        if not (self.losses.affinity or self.losses.contrastive):
            return {}
        _, *places = np.intersect1d(batch.rows["vision"], batch.rows["text"], return_indices=True)
        kind = next(iter(made))
        some = made[kind][self.goals[kind].output]
        rows: list[Tensor] = []
        for student in (True, False):
            for kind, chosen in zip(("vision", "text"), places, strict=True):
                told = _like(said[kind].embeddings, some)
                rows.append((made[kind][self.goals[kind].output] if student and kind in made else told)[chosen])
        columns = [self.processes.gathered(each) for each in rows]
        found = {}
        if self.losses.affinity:
            found["affinity"] = _losses.affinity(rows, columns, self.scale)
        if self.losses.contrastive:
            first = self.processes.rank * len(rows[0])
            found["contrastive"] = _losses.contrastive(rows[:2], columns[:2], first, self.scale)
        return found


def _like(values: np.ndarray, other: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(other.device, torch.float32)


def _fitted(values: Tensor, tokens: int) -> Tensor:
    """Block outputs with as many tokens as the student has: what is cut off or filled up is padding."""
    if values.shape[1] >= tokens:
        return values[:, :tokens]
    return torch.nn.functional.pad(values, (0, 0, 0, tokens - values.shape[1]))


def _counted(said: Said, mask: np.ndarray | None, own: Tensor) -> Tensor | None:
    """1 where a token counts (n, tokens); None where all of them do."""
    tokens = own.shape[1]
    short = said.lengths.min() < tokens
    if mask is None and not short:
        return None
    counted = np.arange(tokens) < said.lengths[:, None]
    if mask is not None and mask.shape == counted.shape:
        counted &= mask != 0
    return _like(counted.astype(np.float32), own)
