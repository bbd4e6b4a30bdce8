"""What benchmarks that train share: blocks of docs/benchmarks.md, processor time, progress."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compress.core.progress import Silent

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def write(begin: str, end: str, lines: Sequence[str]) -> None:
    """Put the lines between two markers of docs/benchmarks.md, or at its end where they are not there yet."""
    text, block = DOCUMENT.read_text("utf-8"), "\n".join([begin, *lines, end])
    if begin in text:
        before, rest = text.split(begin)
        text = before + block + rest.split(end)[1]
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    DOCUMENT.write_text(text, "utf-8")


def merge(begin: str, end: str, lines: Sequence[str]) -> None:
    """Write a block that ends in a table; rows of the one that is there stay where `lines` has none of that name."""
    text = DOCUMENT.read_text("utf-8")
    old = text.split(begin)[1].split(end)[0].splitlines() if begin in text else []
    new = {_name(line): line for line in lines[_table(lines) :]}
    kept = {_name(line): line for line in old[_table(old) :] if line.startswith("| ")}
    write(begin, end, [*lines[: _table(lines)], *(kept | new).values()])


def _table(lines: Sequence[str]) -> int:
    """Where the rows of the only table begin."""
    return next((at + 1 for at, line in enumerate(lines) if line.startswith("| ---")), len(lines))


def _name(line: str) -> str:
    return line.split("|")[1].strip()


def cpu_seconds() -> float:
    """Processor time of this process and of its children that ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Shown(Silent):
    """The loss, now and then, on stderr."""

    def track(self, items: Any, what: str, total: int | None = None, now: Any = None) -> Iterator[Any]:
        """Yield the items."""
        for done, item in enumerate(super().track(items, what, total, now)):
            yield item
            if now is not None and done % 50 == 0:
                print(f"{what} {done}/{total} {now()} {cpu_seconds():.0f} s", file=sys.stderr, flush=True)
