"""Progress on a terminal: bars with rate and time left on stderr, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from compress.core.progress import Progress as Reports
from compress.core.progress import Silent

T = TypeVar("T")


class Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="dim")


class Bars:
    """Shows a bar for what is being worked through, and finished things as lines above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def track(
        self, items: Iterable[T], what: str, total: int | None = None, now: Callable[[], str] | None = None
    ) -> Iterator[T]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        if total is None and isinstance(items, Sized):
            total = len(items)
        with Progress(*columns, console=self._console, transient=True) as shown:
            task = shown.add_task(what, total=total)
            for item in shown.track(items, task_id=task, total=total):
                yield item
                if now is not None:
                    shown.update(task, description=f"{what} {now()}")

    def say(self, line: str) -> None:
        self._console.print(line, style="dim", highlight=False)


def progress(quiet: bool) -> Reports:
    """Bars, unless the user wants it quiet."""
    return Silent() if quiet else Bars()
