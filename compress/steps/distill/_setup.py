"""From a step's options to what is trained, on what, towards what; whatever cannot work is told before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from compress.core import digest
from compress.core.errors import CompressError, UsageError
from compress.data.making import KINDS
from compress.data.training import TrainingBatch, TrainingSet
from compress.models.differentiable import DifferentiableTower, Hook
from compress.models.graph import parameter_count
from compress.models.tower import Encoder, Site, Tower, copied
from compress.recipe.selector import ROLES
from compress.steps._selection import selected
from compress.steps.distill._bank import bank_of
from compress.steps.distill._batches import held_out
from compress.steps.distill._blocks import Pair, paired
from compress.steps.distill._features import Features, identity
from compress.steps.distill._objective import Goal, Objective
from compress.steps.distill._options import Training
from compress.steps.distill._placing import placed
from compress.steps.distill._processes import Processes
from compress.steps.distill._student import Student, put_back, redraw, restrict
from compress.steps.distill._teachers import Teacher
from compress.steps.distill._training import Work
from compress.steps.step import Context

Hooks = Mapping[str, Mapping[str, Hook]]
Towers = Mapping[str, Tower]
Settle = Callable[[Encoder], None]

_BLOCKS: Final = 4
"""Block outputs that are compared at most: more cost disk, and say little more."""

_SCALE: Final = 1 / 0.07
"""Of similarities, where the model has none of its own: CLIP starts with it (2103.00020)."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Towers under training and their teachers, by kind; `sites` are those chosen, None for whole towers.

    `settle` makes of an encoder with trained weights, in place, what the step will leave.
    """

    encoder: Encoder
    teachers: Towers
    kinds: tuple[str, ...]
    sites: Mapping[str, tuple[Site, ...]] | None
    data: TrainingSet
    spec: Training
    context: Context
    settle: Settle

    @classmethod
    def of(cls, encoder: Encoder, spec: Training, context: Context, settle: Settle) -> Setup:
        """Check what the step is given. Raises UsageError for data, towers or selectors that do not fit."""
        sites: dict[str, tuple[Site, ...]] | None = None
        if spec.include or spec.exclude or not set(spec.towers) & set(encoder.towers):
            sites = {}
            for tower, site in selected(encoder.towers, spec, tuple(ROLES)):
                sites[tower.kind] = (*sites.get(tower.kind, ()), site)
        if context.training is None:
            hint = "add data: {training: {source: ..., samples: ...}}"
            raise UsageError("this step needs training data", "data.training", hint)
        if context.teacher is None:
            raise CompressError("a training step is given no teacher")
        if spec.watch == "gates" and context.loss is None:
            raise UsageError(
                "there are no gates to watch: no policy, or none of its tasks can be loaded", "watch", "use held_out"
            )
        chosen = tuple(kind for kind in spec.towers if kind in (sites if sites is not None else encoder.towers))
        kinds = _fed(chosen, spec, context.training)
        for kind in kinds:
            _require_fit(encoder.towers[kind], context.teacher.towers[kind])
        return cls(encoder, context.teacher.towers, kinds, sites, context.training, spec, context, settle)

    def work(self, hooks: Hooks, processes: Processes, cache: Path) -> Work:
        """What the loop works on. Raises UsageError where student and teacher do not fit each other."""
        data, held = held_out(self.data, 0.0 if self.spec.watch == "gates" else self.spec.held_out)
        pairs = {kind: self._pairs(kind) for kind in self.kinds}
        teachers = self._placed(pairs, processes)
        features = self._features(teachers, data, cache)
        towers = {kind: self._module(kind, pairs[kind], hooks.get(kind, {})) for kind in self.kinds}
        widths = self._widths(towers, pairs, next(data.batches(0, processes.world, processes.share)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.seed)
            if self.spec.start == "random":
                for module in towers.values():
                    redraw(module)
            student = Student(towers, widths)
        banks = {kind: self._bank(kind, data, features, processes) for kind in self.kinds}
        goals = {kind: self._goal(kind, pairs[kind], banks[kind]) for kind in self.kinds}
        scale = self.encoder.logit_scale or _SCALE
        told = self.encoder.normalized, scale, self.spec.temperature or 2 / scale
        objective = Objective(self.spec.losses, goals, features, *told, processes)
        if self.spec.watch == "gates":
            return Work(student, objective, data, None, self.spec, lambda: self._lost(student))
        if held is None:
            return Work(student, objective, data, None, self.spec)
        watching = replace(objective, features=self._features(teachers, held, cache), processes=Processes())
        return Work(student, objective, data, (held, watching), self.spec)

    def _lost(self, student: Student) -> float:
        """What the policy's gates lose on development data, with the towers as they are now."""
        assert self.context.loss is not None
        made = copied(self.encoder, self.kinds)
        put_back(made, student)
        self.settle(made)
        lost = self.context.loss(made)
        if not math.isfinite(lost):
            raise UsageError("a gate cannot be measured on development data", "watch", "use watch: held_out")
        return lost

    def follows(self, use: str) -> dict[str, object]:
        """Everything that the outcome follows from, for the checkpoints."""
        graphs = {
            name: digest.of_bytes(tower.graph.SerializeToString(deterministic=True))
            for name, tower in [(k, self.encoder.towers[k]) for k in self.kinds]
        }
        return {
            "use": use,
            "spec": self.spec.model_dump(mode="json", exclude={"checkpoint_minutes", "teacher"}),
            "seed": self.context.seed,
            "student": graphs,
            "teacher": {kind: identity(tower, self.data.digest, ()) for kind, tower in self.teachers.items()},
            "torch": torch.__version__,
        }

    def _pairs(self, kind: str) -> tuple[Pair, ...]:
        if not self.spec.losses.hidden:
            return ()
        found = paired(self.encoder.towers[kind], self.teachers[kind])
        count = min(len(found), _BLOCKS)
        return tuple(found[round((at + 1) * len(found) / count) - 1] for at in range(count))

    def _placed(self, pairs: Mapping[str, tuple[Pair, ...]], processes: Processes) -> dict[str, Teacher]:
        """The teachers that are asked: those of the trained towers, and the other one for some losses."""
        wanted = {kind: tuple(dict.fromkeys(pair.teacher for pair in pairs.get(kind, ()))) for kind in self._asked()}
        asked = {kind: (self.teachers[kind], blocks) for kind, blocks in wanted.items()}
        return placed(self.spec.teacher, asked, processes, self.context.progress)

    def _features(self, teachers: Mapping[str, Teacher], data: TrainingSet, cache: Path) -> dict[str, Features]:
        """What teachers say of some data."""
        return {
            kind: Features(each, cache / identity(each.tower, data.digest, each.blocks), self.context.progress)
            for kind, each in teachers.items()
        }

    def _asked(self) -> tuple[str, ...]:
        losses, there = self.spec.losses, [kind for kind in KINDS[self.data.use] if kind in self.teachers]
        if losses.affinity or losses.contrastive:
            if len(there) < 2:
                hint = "give pairs, or leave out affinity and contrastive"
                raise UsageError(
                    f"these losses need images with captions, and there are {self.data.use}", "losses", hint
                )
            return tuple(there)
        return tuple(kind for kind in there if kind in self.kinds or losses.bank)

    def _module(self, kind: str, pairs: tuple[Pair, ...], hooks: Mapping[str, Hook]) -> DifferentiableTower:
        tower = self.encoder.towers[kind]
        made = DifferentiableTower(tower, tuple(dict.fromkeys(pair.student for pair in pairs)), hooks)
        if self.sites is not None:
            restrict(tower, made, self.sites[kind])
        return made

    def _widths(
        self,
        towers: Mapping[str, DifferentiableTower],
        pairs: Mapping[str, tuple[Pair, ...]],
        first: TrainingBatch,
    ) -> dict[tuple[str, str], tuple[int, int]]:
        """Widths of the paired block outputs, student's and teacher's, seen on one sample."""
        widths = {}
        for kind, module in towers.items():
            feed = {name: torch.from_numpy(value[:1]) for name, value in first.feeds[kind].items()}
            teacher = DifferentiableTower(self.teachers[kind], [pair.teacher for pair in pairs[kind]])
            with torch.no_grad():
                made, said = module(feed), teacher(feed)
            _require_same_space(kind, made[module.output].shape[-1], said[teacher.output].shape[-1])
            for pair in pairs[kind]:
                own, block = made[pair.student], said[pair.teacher]
                if kind == "vision" and own.shape[1] != block.shape[1]:
                    counts = f"{own.shape[1]} and {block.shape[1]} tokens"
                    hint = "leave out the loss `hidden`: losses: {hidden: 0}"
                    raise UsageError(f"blocks of student and teacher have {counts}", "losses.hidden", hint)
                widths[kind, pair.student] = own.shape[-1], block.shape[-1]
        return widths

    def _bank(
        self, kind: str, data: TrainingSet, features: Mapping[str, Features], processes: Processes
    ) -> Tensor | None:
        if not self.spec.losses.bank:
            return None
        other = next((each for each in features if each != kind), kind)  # across if it can be, else among its own
        return bank_of(other, data, features[other], self.spec, processes)

    def _goal(self, kind: str, pairs: tuple[Pair, ...], bank: Tensor | None) -> Goal:
        tower = self.encoder.towers[kind]
        return Goal(tower.output, pairs, tower.inputs[1] if len(tower.inputs) > 1 else None, bank)


def _fed(chosen: tuple[str, ...], spec: Training, data: TrainingSet) -> tuple[str, ...]:
    """Those towers that the data hold inputs for. Raises UsageError where a tower that is asked for gets none."""
    fed = tuple(kind for kind in chosen if kind in KINDS[data.use])
    left = [kind for kind in chosen if kind not in fed]
    if left and ("towers" in spec.model_fields_set or not fed):
        hint = "give the step other data, or other `towers`"
        raise UsageError(f"there are only {data.use} to train on, and none of them is for {left[0]}", "towers", hint)
    return fed


def _require_fit(student: Tower, teacher: Tower) -> None:
    own, other = parameter_count(student.graph), parameter_count(teacher.graph)
    if own > other:
        raise UsageError(
            f"the {student.kind} student has {own:,} weights and its teacher {other:,}",
            "student",
            "a student is smaller than its teacher",
        )


def _require_same_space(kind: str, own: int, other: int) -> None:
    if own != other:
        raise UsageError(f"the {kind} student's embeddings have {own} numbers, the teacher's {other}", "student")
