"""Policies as files: found by name or path, read together with the ones they extend, written as one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final

from compress.core import names
from compress.core.errors import DocumentError, Problem, UsageError
from compress.gates import inheritance
from compress.gates.inheritance import EXTENDS, WITHOUT, Resolved
from compress.recipe import document, scalars, writing
from compress.recipe.document import Document

DEPTH: Final = 4
"""Files in a chain of policies. Whoever reviews one has to read them all."""


@dataclass(frozen=True)
class Lineage:
    """A policy merged with its ancestors, after each of them as it is on its own, and what could not be merged."""

    levels: tuple[Resolved, ...]
    problems: tuple[Problem, ...]

    @property
    def resolved(self) -> Resolved:
        """The policy itself."""
        return self.levels[-1]

    def require_merged(self) -> Resolved:
        """The policy itself. Raises DocumentError where it could not be merged."""
        if self.problems:
            raise DocumentError(self.resolved.file, self.problems)
        return self.resolved


def find_policy(name_or_path: str | Path) -> Path:
    """The file of a policy: a path that exists, or the name of one that ships with the package."""
    path = Path(name_or_path)
    return path if path.is_file() else _shipped(str(name_or_path))


def bundled_policies() -> dict[str, Path]:
    """The policies that ship with the package, by name."""
    return {each.stem: each for each in sorted(names.bundled("evals", "policies").glob("*.yaml"))}


def _shipped(name: str) -> Path:
    shipped, wanted = bundled_policies(), name.removesuffix(".yaml")
    if wanted not in shipped:
        raise UsageError(f"no policy {name!r}", hint=names.did_you_mean(wanted, shipped))
    return shipped[wanted]


def read(file: Path) -> Lineage:
    """Read a policy and all that it extends, without looking at what its gates say.

    Raises UsageError where a file cannot be opened, DocumentError where one is no document or its parent is not
    there, is one of its own descendants, or too far up.
    """
    chain = _chain(file)
    first, *children = reversed(chain)
    problems: list[Problem] = []
    levels = [inheritance.alone(first)]
    if WITHOUT in first.data:
        problems.append(replace(first.problem((WITHOUT,), f"goes with `{EXTENDS}` only"), file=first.file))
        levels = [inheritance.alone(replace(first, data={**first.data, WITHOUT: None}))]
    for child in children:
        merged, wrong = inheritance.merge(levels[-1], child)
        levels.append(merged)
        problems += [replace(each, file=child.file) for each in wrong]
    return Lineage(tuple(levels), tuple(problems))


def _chain(file: Path) -> list[Document]:
    """The policy, its parent, and so on."""
    chain, seen = [document.read(file)], [file.resolve()]
    while EXTENDS in chain[-1].data:
        child = chain[-1]
        parent = _parent(child, child.data[EXTENDS])
        if parent.resolve() in seen:
            told = " -> ".join(each.file for each in chain[seen.index(parent.resolve()) :])
            raise DocumentError(child.file, [child.problem((EXTENDS,), f"comes back to itself: {told} -> {parent}")])
        if len(chain) == DEPTH:
            told = " -> ".join(each.file for each in chain)
            what = f"is the {DEPTH + 1}th policy of a chain, and {DEPTH} are the most: {told} -> {parent}"
            raise DocumentError(child.file, [child.problem((EXTENDS,), what)])
        chain.append(document.read(parent))
        seen.append(parent.resolve())
    return chain


def _parent(child: Document, named: Any) -> Path:
    """The file that `extends` means: with a slash or an ending a path beside the child, else a bundled name."""
    what = hint = ""
    if not isinstance(named, str) or not named.strip():
        what = f"must be the name of a bundled policy, or a path relative to this file, not {scalars.shown(named)}"
    elif PurePath(named).is_absolute() or named.startswith("~"):
        what = "must be relative to this file: an absolute path means something else on every machine"
    elif re.search(r"/|\.ya?ml$", named):
        beside = Path(child.file).parent / named
        if beside.is_file():
            return beside
        what, hint = f"there is no file {beside}", names.did_you_mean(beside.name, _neighbours(beside))
    else:
        shipped = bundled_policies()
        if named in shipped:
            return shipped[named]
        what, hint = f"no policy {scalars.shown(named)}", names.did_you_mean(named, shipped)
    raise DocumentError(child.file, [child.problem((EXTENDS,), what, hint)])


def _neighbours(path: Path) -> list[str]:
    return [each.name for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []


def written(file: Path) -> bytes:
    """What an artifact keeps of a policy: the file as it is, or one that says all that it and its ancestors say."""
    lineage = read(file)
    if len(lineage.levels) == 1:
        return file.read_bytes()
    resolved = lineage.require_merged()
    ancestry = " -> ".join(_line(level.data.get("name")) for level in reversed(lineage.levels))
    head = [f"# {ancestry}, merged."]
    head += [f"# Without {each.metric} {each.rule}: {_line(each.because)}" for each in resolved.dropped]
    return ("\n".join(head) + "\n" + writing.dump(resolved.data)).encode()


def _line(text: object) -> str:
    """Text that stays in its comment."""
    return " ".join(str(text).split())
