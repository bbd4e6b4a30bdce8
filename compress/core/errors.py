"""Every error a user can meet, and the exit code each one ends the process with.

CompressError                1  a bug
├── UsageError               2  command line, recipe or policy is wrong
│   └── DocumentError        2  ... with every problem of a file, each with line and column
├── GateFailed               3  measured and not good enough
├── Inconclusive             4  not measured well enough to decide
├── EnvironmentFailure       5  a provider, extra, version or download is missing
├── IntegrityError           6  bytes are not what the manifest says
├── ResourceExhausted        7  disk, memory or time ran out; try again
└── ConflictError            8  another run holds the name, or the name is taken
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class CompressError(Exception):
    """What happened, where, and what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(CompressError):
    """The command line, a recipe or a policy asks for something that cannot be."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a document: 1-based line and column, dotted path (`steps[2].use`), what, and what to do.

    `file` is set where it is another one than the document's, such as the parent of a policy.
    """

    line: int
    column: int
    path: str
    what: str
    hint: str = ""
    file: str = ""


class DocumentError(UsageError):
    """A recipe, policy or task file with everything that is wrong in it."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file, self.problems = file, tuple(problems)
        lines = [
            f"{each.file or file}:{each.line}:{each.column} {each.path}: {each.what}"
            + (f" ({each.hint})" if each.hint else "")
            for each in self.problems
        ]
        super().__init__("\n".join(lines))


class GateFailed(CompressError):
    """At least one gate was measured and is not met."""

    exit_code = 3


class Inconclusive(CompressError):
    """At least one gate could not be decided, which blocks as well."""

    exit_code = 4


class EnvironmentFailure(CompressError):
    """Something this machine lacks: a provider, an extra, a version, a file that would have to be downloaded."""

    exit_code = 5


class IntegrityError(CompressError):
    """Bytes are not what they are said to be."""

    exit_code = 6


class ResourceExhausted(CompressError):
    """Disk, memory or time ran out; the same call may succeed with more of it."""

    exit_code = 7


class ConflictError(CompressError):
    """Another run holds the lock, or the name is taken by a different artifact."""

    exit_code = 8


_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def disk_full(error: BaseException) -> bool:
    """Whether an error means that a file could not be written for want of room."""
    short = "requested and" in str(error) and "written" in str(error)  # numpy tells of it without a number
    return isinstance(error, OSError) and (error.errno in _NO_ROOM or short)
