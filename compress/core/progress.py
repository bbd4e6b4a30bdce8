"""How long work tells how far it is. The command line shows bars, a library caller may pass nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Something that can show a sequence being worked through and say a line in between."""

    def track(
        self, items: Iterable[T], what: str, total: int | None = None, now: Callable[[], str] | None = None
    ) -> Iterator[T]:
        """Yield the items; show what is done, at which rate, the time left, and what `now` says at each item."""
        ...

    def say(self, line: str) -> None:
        """Tell one finished thing."""
        ...


class Silent:
    """Shows nothing."""

    def track(
        self,
        items: Iterable[T],
        what: str,  # noqa: ARG002
        total: int | None = None,  # noqa: ARG002
        now: Callable[[], str] | None = None,  # noqa: ARG002
    ) -> Iterator[T]:
        """Yield the items."""
        yield from items

    def say(self, line: str) -> None:
        """Keep quiet."""
