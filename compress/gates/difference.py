"""What changed between two policies, and which way: whatever is not plainly tighter or harmless counts as loosened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal

from compress.gates.gate import GateSpec, Stricter
from compress.gates.policy import Policy, PolicyTask
from compress.gates.rules import worst_slice
from compress.recipe.scalars import shown

Kind = Literal["tightened", "loosened", "changed"]

_WORDS: Final = frozenset({"because", "name", "description"})
"""What explains and decides nothing."""

_COUNTS: Final = ("items", "items_per_slice")


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that is not the same: of which gate or task, which entry, before and after, and what that means."""

    kind: Kind
    where: str
    what: str
    old: str
    new: str
    meaning: str = ""


def differences(old: Policy, new: Policy) -> tuple[Difference, ...]:
    """Every difference in what has to hold, defaults counted as if they were written; none between equal policies."""
    return (*_words("policy", old, new), *_tasks(old, new), *_gates(old, new))


def loosened(found: tuple[Difference, ...]) -> bool:
    """Whether anything may pass now that did not before."""
    return any(each.kind == "loosened" for each in found)


def _words(where: str, old: Any, new: Any) -> Iterator[Difference]:
    for name in sorted(_WORDS & type(old).model_fields.keys()):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Difference("changed", where, name, shown(before), shown(after))


def _tasks(old: Policy, new: Policy) -> Iterator[Difference]:
    for name in dict.fromkeys((*old.tasks, *new.tasks)):
        where, before, after = f"task {name}", old.tasks.get(name), new.tasks.get(name)
        if before is None:
            yield Difference("changed", where, "task", "none", "there", "measured now; gates decide what it is for")
        elif after is None:
            yield Difference("loosened", where, "task", "there", "none", "no longer measured")
        else:
            yield from _task(where, before, after)


def _task(where: str, old: PolicyTask, new: PolicyTask) -> Iterator[Difference]:
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        kind: Kind = "loosened"
        meaning = "other data: nobody can tell which way"
        if name == "split":
            kind = "tightened" if after == "release" else "loosened"
            meaning = "" if after == "release" else "candidates are selected on the development split"
        elif name in _COUNTS:
            kind, meaning = _count(before, after)
        yield Difference(kind, where, name, _told(before), _told(after), meaning)


def _count(before: int | None, after: int | None) -> tuple[Kind, str]:
    if before is None:
        return "loosened", "was left to the task, which may have more"
    if after is None:
        return "loosened", "is left to the task, which may have fewer"
    return ("tightened", "") if after > before else ("loosened", "fewer items")


def _gates(old: Policy, new: Policy) -> Iterator[Difference]:
    before, after = _by_key(old), _by_key(new)
    for key in dict.fromkeys((*before, *after)):
        where = f"{key[0]} {key[1]}"
        for first, second in zip_longest(before.get(key, ()), after.get(key, ())):
            if first is None:
                yield Difference("tightened", where, "gate", "none", "there", "one more gate")
            elif second is None:
                yield Difference("loosened", where, "gate", "there", "none", "the gate is gone")
            else:
                yield from _words(where, first, second)
                yield from _options(where, first, second)


def _by_key(policy: Policy) -> dict[tuple[str, str], list[GateSpec]]:
    made: dict[tuple[str, str], list[GateSpec]] = {}
    for gate in policy.gates:
        made.setdefault((gate.metric, gate.rule), []).append(gate)
    return made


def _options(where: str, old: GateSpec, new: GateSpec) -> Iterator[Difference]:
    """What the options of a rule say of themselves; slices and their own margins are one thing with the margin."""
    sliced = isinstance(old, worst_slice.Spec) and isinstance(new, worst_slice.Spec)
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after or name in _WORDS or (sliced and name in ("slices", "margins")):
            continue
        way = next((each for each in field.metadata if isinstance(each, Stricter)), None)
        kind = _kind(way, before, after)
        if kind is not None:
            yield Difference(kind, where, name, _told(before), _told(after), _MEANINGS.get((name, kind), ""))
    if isinstance(old, worst_slice.Spec) and isinstance(new, worst_slice.Spec):
        yield from _slices(where, old, new)


_MEANINGS: Final = {
    ("margin", "loosened"): "a larger drop passes",
    ("confidence", "loosened"): "the drop has to be shown less surely",
    ("min_items", "loosened"): "a slice is decided on fewer items",
    ("dimensions", "loosened"): "slices of a dimension are no longer judged",
}


def _kind(way: Stricter | None, before: Any, after: Any) -> Kind | None:
    if way is Stricter.MORE:
        return _fewer(before, after)
    if way is None:
        return "loosened"
    if before is None or after is None:  # a floor that was not there before, or is gone
        return "tightened" if before is None else "loosened"
    return "tightened" if (after > before) == (way is Stricter.HIGHER) else "loosened"


def _fewer(before: tuple[str, ...] | None, after: tuple[str, ...] | None) -> Kind | None:
    """Names compared as sets; None is all there are."""
    if before is None or after is None:
        return "tightened" if after is None else "loosened"
    if set(before) == set(after):
        return None
    return "tightened" if set(before) < set(after) else "loosened"


def _slices(where: str, old: worst_slice.Spec, new: worst_slice.Spec) -> Iterator[Difference]:
    """Slices that have to be there, and what each may lose."""
    for name in sorted({*old.required} ^ {*new.required}):
        if name in old.required:
            yield Difference("loosened", where, name, "required", "not required", "may be missing now")
        else:
            yield Difference("tightened", where, name, "not required", "required")
    for name in sorted({*old.margins} | {*new.margins}):
        yield from _own_margin(f"{where} {name}", old, new, name)


def _own_margin(where: str, old: worst_slice.Spec, new: worst_slice.Spec, name: str) -> Iterator[Difference]:
    own = old.margins.get(name), new.margins.get(name)
    before, after = (old if own[0] is None else own[0]).margin, (new if own[1] is None else own[1]).margin
    if before != after:
        kind: Kind = "loosened" if after > before else "tightened"
        yield Difference(kind, where, "margin", _told(before), _told(after), _MEANINGS.get(("margin", kind), ""))
    if all(own):
        yield from _words(where, *own)


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else shown(value) if isinstance(value, float) else str(value)
