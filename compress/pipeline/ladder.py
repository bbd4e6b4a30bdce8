"""The rungs of a rescue: what is tried, in which order, when the gates fail on the development split.

A rung is a list of steps that anyone could have written into the recipe, so the one that is taken can be copied from
the report. First the worst layers stay in float, 1, 2, 4 and so on of them; then blocks become finer; then the
rounding better; then 4 bits become 8. From finer blocks on, a rung keeps what the one before it has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from compress.recipe.selector import Selector
from compress.recipe.steps import Step, StepSpec
from compress.steps import spec_of

AS_WRITTEN: Final = "as written"
COARSEST: Final = 32
"""The block that finer blocks start with: half of the bytes that scales can cost are still saved."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a step has treated, as a selector names it: `vision:mlp.fc2@1`. A table has no input to calibrate."""

    selector: str
    table: bool
    kernel: bool = False

    @classmethod
    def of(cls, tower: str, role: str, layer: int | None, table: bool) -> Layer:
        """The layer that a site belongs to."""
        return cls(str(Selector(role, tower, layer)), table, role == "conv")  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Rung:
    """A name, what is changed in words, and the steps in place of the recipe's."""

    name: str
    what: str
    steps: tuple[Step, ...]
    in_float: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """What the rungs are made from: the recipe's steps, what each of them treated, and what is known of both.

    `worst` are selectors of layers, those that damage the embedding most first; `calibrated` says whether there are
    calibration data.
    """

    steps: tuple[Step, ...]
    treated: tuple[tuple[Layer, ...], ...]
    worst: tuple[str, ...]
    calibrated: bool


def rungs(start: Start) -> Iterator[Rung]:
    """Every rung, cheapest change first."""
    yield from _in_float(start)
    steps = start.steps
    for name, change in (("finer blocks", _finer), ("better rounding", _better), ("next format", _next)):
        changed = tuple(
            change(step, layers, start.calibrated) if step.use.startswith("quantize.") else step
            for step, layers in zip(steps, start.treated, strict=True)
        )
        if changed != steps:
            yield Rung(name, _difference(steps, changed), changed)
            steps = changed


def _in_float(start: Start) -> Iterator[Rung]:
    """1, 2, 4 ... of the worst layers left as they are; all of them would be no compression."""
    count = 1
    while count < len(start.worst):
        kept = start.worst[:count]
        steps = tuple(
            left
            for step, layers in zip(start.steps, start.treated, strict=True)
            if (left := _without(step, layers, kept)) is not None
        )
        if steps:
            yield Rung(f"{count} in float", ", ".join(kept), steps, in_float=True)
        count *= 2


def _without(step: Step, layers: Sequence[Layer], kept: Sequence[str]) -> Step | None:
    """The step without these layers; None where it would have nothing left to do."""
    own = [each.selector for each in layers]
    excluded = [each for each in kept if each in own]
    if not step.use.startswith("quantize.") or not excluded:
        return step
    if len(excluded) == len(set(own)):
        return None
    return _with(step, exclude=(*step.spec.exclude, *(each for each in excluded if each not in step.spec.exclude)))


def _finer(step: Step, layers: Sequence[Layer], calibrated: bool) -> Step:  # noqa: ARG001  (one signature for changes)
    """Smaller blocks for 4-bit weights; a scale for each block where one was shared by a whole weight."""
    block = getattr(step.spec, "block", None)
    if getattr(step.spec, "scale_per", "block") == "tensor":
        return _with(step, scale_per="block", block=min(block or COARSEST, COARSEST))
    if bits(step) != 4 or block is None or block <= 16:
        return step
    return _with(step, block=min(COARSEST, block // 2))


def _better(step: Step, layers: Sequence[Layer], calibrated: bool) -> Step:
    """Rounding that compensates where there are data for it, else one that searches."""
    method = "quantize.gptq" if calibrated and not _tables(layers) else "quantize.hqq"
    known = {"quantize.int4_rtn": ("quantize.gptq", "quantize.hqq"), "quantize.hqq": ("quantize.gptq",)}
    if bits(step) != 4 or method not in known.get(step.use, ()):
        return step
    return _other(step, method, weights="int4", block=getattr(step.spec, "block", COARSEST))


def _next(step: Step, layers: Sequence[Layer], calibrated: bool) -> Step:
    """8 bits in place of 4: with static scales for the inputs where there are data, else of weights alone.

    Inputs of convolutions stay in float: only patches have integer kernels.
    """
    if bits(step) != 4:
        return step
    if calibrated and not _tables(layers) and not any(each.kernel for each in layers):
        return _other(step, "quantize.int8_static")
    return _other(step, "quantize.int8_rtn", block=getattr(step.spec, "block", COARSEST))


def bits(step: Step) -> int | None:
    """Bits of the weights that a step makes; None where its options do not say."""
    named = getattr(step.spec, "weights", step.use.partition(".")[2])
    return next((count for count in (4, 8) if str(named).startswith(f"int{count}")), None)


def _tables(layers: Sequence[Layer]) -> bool:
    return any(each.table for each in layers)


def _with(step: Step, **changes: Any) -> Step:
    return Step(use=step.use, spec=step.spec.model_copy(update=changes))


def _other(step: Step, use: str, **options: Any) -> Step:
    """Another method on what this one works on."""
    where = {name: getattr(step.spec, name) for name in StepSpec.model_fields if name in step.spec.model_fields_set}
    return Step(use=use, spec=spec_of(use)(**where, **options))


def _difference(before: Sequence[Step], after: Sequence[Step]) -> str:
    """`steps[0] quantize.int4_rtn block 128 -> 32`, for each step that changed."""
    told = (_change(at, old, new) for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    return "; ".join(told)


def _change(at: int, old: Step, new: Step) -> str:
    if old.use != new.use:
        return f"steps[{at}] {old.use} -> {new.use}"
    was, now = _options(old), _options(new)
    parts = [f"{name} {was[name]} -> {value}" for name, value in now.items() if was[name] != value]
    return f"steps[{at}] {new.use} {', '.join(parts)}"


def _options(step: Step) -> Mapping[str, Any]:
    return step.spec.model_dump(mode="json")
