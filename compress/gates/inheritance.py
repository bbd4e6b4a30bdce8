"""A policy that extends another one, merged: pure data in and out, each entry knowing in which file it was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from compress.core.errors import Problem
from compress.core.names import did_you_mean
from compress.recipe import document, tree
from compress.recipe.document import Document
from compress.recipe.fields import Strict, Text

EXTENDS: Final = "extends"
WITHOUT: Final = "without"
Key = tuple[str, str]
"""Metric and rule: what a gate goes by."""


class Dropped(Strict):
    """A gate of the parent that does not hold here, and why."""

    metric: str
    rule: str
    because: Text


@dataclass(frozen=True)
class Resolved(Document):
    """A policy with everything its ancestors say; `origins` leads from an entry to the document that wrote it."""

    origins: Mapping[tree.Path, tuple[Document, tree.Path]] = field(default_factory=dict, repr=False)
    dropped: tuple[Dropped, ...] = ()

    def problem(self, path: tree.Path, what: str, hint: str = "") -> Problem:
        """Something wrong at a path, told of the file and under the path where it was written."""
        source, written = self.origin(path)
        return replace(source.problem(written, what, hint), file=source.file)

    def origin(self, path: tree.Path) -> tuple[Document, tree.Path]:
        """Who wrote an entry, whichever ancestor it was, and where."""
        head = path
        while head not in self.origins:
            head = head[:-1]
        source, written = self.origins[head]
        return source, (*written, *path[len(head) :])


def alone(own: Document) -> Resolved:
    """A policy that extends nothing."""
    return Resolved(own.file, own.data, own.marks, origins={(): (own, ())})


def merge(parent: Resolved, child: Document) -> tuple[Resolved, list[Problem]]:
    """What `child` says on top of `parent`, and what cannot be merged.

    Tasks go by their name and gates by metric and rule: the child's take the place of the parent's, the others come
    after them. A parent's gate is lost only if `without` names it.
    """
    data: dict[str, Any] = {key: value for key, value in child.data.items() if key not in (EXTENDS, WITHOUT)}
    origins: dict[tree.Path, tuple[Document, tree.Path]] = {(): (child, ())}
    dropped, problems = _dropped(parent, child)
    _merge_tasks(data, origins, parent, child)
    problems += _merge_gates(data, origins, parent, child, {(each.metric, each.rule) for each in dropped})
    return Resolved(child.file, data, child.marks, origins=origins, dropped=(*parent.dropped, *dropped)), problems


def _merge_tasks(data: dict[str, Any], origins: dict[Any, Any], parent: Resolved, child: Document) -> None:
    inherited, own = parent.data.get("tasks", {}), child.data.get("tasks", {})
    if not isinstance(inherited, dict) or not isinstance(own, dict):
        return  # refused when it is decoded
    if "tasks" in parent.data or "tasks" in child.data:
        data["tasks"] = {**inherited, **own}
    for name in data.get("tasks", {}):
        path = ("tasks", name)
        origins[path] = (child, path) if name in own else parent.origin(path)


def _merge_gates(
    data: dict[str, Any], origins: dict[Any, Any], parent: Resolved, child: Document, dropped: set[Key]
) -> list[Problem]:
    inherited, own = parent.data.get("gates", []), child.data.get("gates", [])
    if not isinstance(inherited, list) or not isinstance(own, list):
        return []  # refused when it is decoded
    keys = [key_of(gate) for gate in own]
    problems = _ambiguous(child, keys, Counter(map(key_of, inherited)))
    placed: list[tuple[Any, tuple[Document, tree.Path]]] = []
    for at, gate in enumerate(inherited):
        key = key_of(gate)
        if key is not None and key in keys:
            if key in dropped:
                problems.append(child.problem(("gates", keys.index(key)), "is named under `without` as well"))
            index = keys.index(key)
            placed.append((own[index], (child, ("gates", index))))
        elif key not in dropped:
            placed.append((gate, parent.origin(("gates", at))))
    known = {key for gate in inherited if (key := key_of(gate)) is not None}
    placed += [(gate, (child, ("gates", at))) for at, gate in enumerate(own) if keys[at] not in known]
    data["gates"] = [gate for gate, _ in placed]
    origins.update({("gates", at): origin for at, (_, origin) in enumerate(placed)})
    return problems


def _ambiguous(child: Document, keys: list[Key | None], above: Counter[Key | None]) -> list[Problem]:
    """Gates of which nobody could tell which one they replace."""
    here = Counter(keys)
    return [
        child.problem(
            ("gates", at), f"{_named(key)} is there {max(above[key], here[key])} times: which replaces which?"
        )
        for at, key in enumerate(keys)
        if key is not None and above[key] and max(above[key], here[key]) > 1
    ]


def _dropped(parent: Resolved, child: Document) -> tuple[list[Dropped], list[Problem]]:
    """The entries of `without`, each of which has to name one gate of the parent."""
    entries = child.data.get(WITHOUT, [])
    if not isinstance(entries, list):
        return [], [child.problem((WITHOUT,), "must be a list of gates, each with its metric, rule and because")]
    gates = parent.data.get("gates", [])
    known = [key for gate in (gates if isinstance(gates, list) else []) if (key := key_of(gate)) is not None]
    made: list[Dropped] = []
    problems: list[Problem] = []
    for at in range(len(entries)):
        entry, wrong = document.attempt(child, Dropped, (WITHOUT, at))
        problems += wrong
        if entry is None:
            continue
        key = entry.metric, entry.rule
        if any(key == (each.metric, each.rule) for each in made):
            problems.append(child.problem((WITHOUT, at), f"names {_named(key)} a second time"))
        elif key not in known:
            hint = did_you_mean(_named(key), map(_named, known))
            problems.append(child.problem((WITHOUT, at), f"the parent has no gate {_named(key)}", hint))
        made.append(entry)
    return made, problems


def key_of(gate: Any) -> Key | None:
    """Metric and rule of a gate as it was written; None where it does not say them."""
    key = (gate.get("metric"), gate.get("rule")) if isinstance(gate, dict) else (None, None)
    return key if isinstance(key[0], str) and isinstance(key[1], str) else None  # type: ignore[return-value]


def _named(key: Key) -> str:
    return f"{key[0]} {key[1]}"
