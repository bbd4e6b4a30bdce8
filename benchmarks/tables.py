"""What benchmarks that train share: blocks of docs/benchmarks.md, processor time, progress."""

from __future__ import annotations

import os
import resource
import sys
import threading
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


def resident(root: int) -> int:
    """Resident bytes of a process and all below it together; pages that they share count twice."""
    return sum(_resident(each) for each in _tree(root))


def _tree(root: int) -> Iterator[int]:
    yield root
    try:
        tasks = Path(f"/proc/{root}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    except OSError:
        return
    for pid in children:
        yield from _tree(int(pid))


def _resident(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/status").read_text()
        return int(told.split("VmRSS:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


class Watched:
    """The most resident bytes of this process, and of it and its children together, while a block runs."""

    def __init__(self, every: float = 0.05) -> None:
        self.own, self.together, self._every, self._over = 0, 0, every, threading.Event()

    def __enter__(self) -> Watched:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every):
            self.own = max(self.own, _resident(os.getpid()))
            self.together = max(self.together, resident(os.getpid()))


class Shown(Silent):
    """The loss, now and then, on stderr."""

    def track(self, items: Any, what: str, total: int | None = None, now: Any = None) -> Iterator[Any]:
        """Yield the items."""
        for done, item in enumerate(super().track(items, what, total, now)):
            yield item
            if now is not None and done % 50 == 0:
                print(f"{what} {done}/{total} {now()} {cpu_seconds():.0f} s", file=sys.stderr, flush=True)
