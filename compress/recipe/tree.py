"""YAML text as plain data with the position of every entry, or everything that is wrong in it.

Only what JSON can say is let through: no anchors, aliases, merge keys, tags, directives, non-text keys, NaN or
infinities. Size, depth and the number of entries are bounded before anything is built, so no text takes long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from compress.core.errors import Problem
from compress.recipe import scalars

Path = tuple[str | int, ...]
Mark = tuple[int, int]
"""1-based line and column."""

MAX_BYTES = 256 * 1024  # the parser needs quadratic time for some texts; up to this size that stays below a second
MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_PROBLEMS = 100

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")


@dataclass
class Tree:
    """What a text holds: its data, where each entry is, and what is wrong."""

    data: Any = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def grow(text: str) -> Tree:
    """Read a text; where `problems` is not empty the data are incomplete."""
    tree = Tree()
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        tree.problems.append(Problem(1, 1, dotted(()), f"is larger than {MAX_BYTES // 1024} KiB"))
        return tree
    builder = _Builder(tree, _events(text))
    try:
        builder.stream()
    except _UnreadableError as stop:
        tree.problems.append(stop.problem)
    return tree


def dotted(path: Path) -> str:
    """`("steps", 2, "use")` as `steps[2].use`; the top as `document`."""
    made = ""
    for part in path:
        if isinstance(part, int):
            made += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            made += f".{part}" if made else part
        else:
            made += f"[{part[:60]!r}]"
    return made or "document"


class _UnreadableError(Exception):
    """Nothing behind this point can be read."""

    def __init__(self, mark: Mark, what: str, path: Path = ()) -> None:
        super().__init__(what)
        self.problem = Problem(*mark, dotted(path), what)


def _events(text: str) -> Iterator[Any]:
    parser = YAML(typ="safe", pure=True).parse(text)
    last: Mark = (1, 1)
    while True:
        try:
            event = next(parser)
        except StopIteration:
            return
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            raise _UnreadableError((at.line + 1, at.column + 1) if at else last, _one_line(error.problem)) from None
        except ReaderError as error:
            before = text[: error.position]
            mark = before.count("\n") + 1, error.position - before.rfind("\n")
            raise _UnreadableError(mark, f"character U+{ord(text[error.position]):04X} is not allowed") from None
        except Exception as error:  # malformed text makes the parser fail in many ways of its own
            raise _UnreadableError(last, f"is not YAML: {_one_line(str(error))}") from None
        last = event.start_mark.line + 1, event.start_mark.column + 1
        yield event


def _one_line(text: str | None) -> str:
    return " ".join((text or "cannot be read").split())[:200]


class _Builder:
    """Turns parser events into data, one entry at a time, and notes what is not allowed."""

    def __init__(self, tree: Tree, events: Iterator[Any]) -> None:
        self.tree, self.events, self.nodes = tree, events, 0

    def stream(self) -> None:
        """Read the one document there may be."""
        next(self.events)
        start = next(self.events)
        if _kind(start) == "StreamEnd":
            raise _UnreadableError((1, 1), "is empty")
        if start.version or start.tags:
            self.refuse(start, (), "directives are not allowed")
        self.tree.data = self.node(next(self.events), ())
        next(self.events)
        rest = next(self.events)
        if _kind(rest) != "StreamEnd":
            self.refuse(rest, (), "a second document begins here; one file holds one")

    def node(self, event: Any, path: Path) -> Any:
        """The value that begins with this event, and everything below it."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _UnreadableError(_mark(event), f"more than {MAX_NODES:,} entries")
        if _kind(event) != "Scalar" and len(path) >= MAX_DEPTH:
            raise _UnreadableError(_mark(event), f"nested deeper than {MAX_DEPTH} levels", path[:3])
        if _kind(event) == "Alias":
            return self.refuse(event, path, "aliases (*name) are not allowed; write the value out")
        if event.anchor:
            self.refuse(event, path, "anchors (&name) are not allowed")
        if event.tag:
            self.refuse(event, path, "tags (!name) are not allowed")
        if _kind(event) == "MappingStart":
            return self.mapping(path)
        return self.sequence(path) if _kind(event) == "SequenceStart" else self.scalar(event, path)

    def mapping(self, path: Path) -> dict[str, Any]:
        """Entries up to the end of a mapping."""
        made: dict[str, Any] = {}
        while _kind(event := next(self.events)) != "MappingEnd":
            key = self.key(event, path)
            inner = (*path, key)
            if key in made:
                line = self.tree.marks[inner][0]
                self.refuse(event, inner, f"is there twice; the first is in line {line}")
            self.tree.marks.setdefault(inner, _mark(event))
            made[key] = self.node(next(self.events), inner)
        return made

    def key(self, event: Any, path: Path) -> str:
        """A key, which must be plain text."""
        if _kind(event) != "Scalar":
            raise _UnreadableError(_mark(event), "keys must be text", path)
        value = self.node(event, path)
        if not isinstance(value, str):
            self.refuse(event, path, f"keys must be text, not {scalars.shown(value)}")
        elif value == "<<" and not event.style:
            self.refuse(event, path, "merge keys (<<) are not allowed")
        return str(value)

    def sequence(self, path: Path) -> list[Any]:
        """Entries up to the end of a sequence."""
        made: list[Any] = []
        while _kind(event := next(self.events)) != "SequenceEnd":
            inner = (*path, len(made))
            self.tree.marks[inner] = _mark(event)
            made.append(self.node(event, inner))
        return made

    def scalar(self, event: Any, path: Path) -> Any:
        """A value without parts."""
        text = str(event.value)
        if unsafe := _UNSAFE.search(text):
            return self.refuse(event, path, f"character U+{ord(unsafe[0]):04X} is not allowed")
        if event.style:
            return text
        try:
            return scalars.read(text)
        except ValueError as error:
            return self.refuse(event, path, str(error))

    def refuse(self, event: Any, path: Path, what: str) -> None:
        """Note a problem at an event."""
        self.tree.problems.append(Problem(*_mark(event), dotted(path), what))
        if len(self.tree.problems) >= MAX_PROBLEMS:
            raise _UnreadableError(_mark(event), f"{MAX_PROBLEMS} problems up to here; the rest was not read")


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def _mark(event: Any) -> Mark:
    return event.start_mark.line + 1, event.start_mark.column + 1
