"""The ladder of a rescue: a table for the terminal, and the words that the page shows with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from compress.report import wording
from compress.report.document import Document, Judged, Rescue, Rung

MOST: Final = 1
"""Blocking gates that a row names; the page lists all of them."""

_DROPS: Final = ("non_inferior", "worst_slice")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Prints itself with rich: a row for each rung that was tried, and a sentence; nothing where there are none."""

    report: Document

    def __rich_console__(self, *_: object) -> Iterator[RenderableType]:
        told = self.report.rescue
        if told is None:
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in ("Rung", "On development data", "Blocked by"):
            table.add_column(name, overflow="fold")
        for name in ("Size", "Time"):
            table.add_column(name, justify="right", no_wrap=True)
        for rung in told.tried:
            mark = "→ " if rung.rung == told.taken else "  "
            cells = (
                f"{mark}{rung.rung}",
                rung.status,
                blocked_by(rung),
                cost(rung.size_ratio),
                cost(rung.latency_ratio),
            )
            table.add_row(*map(Text, cells))
        yield Text()
        yield table
        yield Text(sentence(told), style="dim")


def sentence(told: Rescue) -> str:
    """`taken: better rounding, size 0.14 -> 0.17 of the reference's; the first rung whose gates pass ...`."""
    rungs = {each.rung: each for each in told.tried}
    taken, first = rungs.get(told.taken), told.tried[0] if told.tried else None
    if taken is None or first is None or taken is first:
        return f"taken: {told.taken}; {told.why}"
    parts = [f"size {cost(first.size_ratio)} -> {cost(taken.size_ratio)}"]
    if taken.latency_ratio is not None:
        parts.append(f"time {cost(first.latency_ratio)} -> {cost(taken.latency_ratio)}")
    return f"taken: {told.taken} ({taken.what}); {', '.join(parts)} of the reference's; {told.why}"


def cost(ratio: float | None) -> str:
    """A ratio to the reference."""
    return wording.NOTHING if ratio is None else f"{ratio:.3f}"


def blocked_by(rung: Rung) -> str:
    """The gates that block a rung, those farthest from their limit first; the reason where it was not measured."""
    blocking = sorted((each for each in rung.findings if each.status != "passed"), key=_distance)
    if not blocking:
        return rung.reason if rung.status != "passed" else ""
    more = f" and {len(blocking) - MOST} more" if len(blocking) > MOST else ""
    return "; ".join(map(found, blocking[:MOST])) + more


def found(each: Judged) -> str:
    """`reading.accuracy size=6-8: 8.21 pt, limit 2.00 pt`."""
    name = f"{each.metric}{f' {each.slice}' if each.slice else ''}"
    if each.value is None or each.threshold is None:
        return f"{name}: {each.status}"
    drop = each.rule in _DROPS
    write = wording.points if drop else wording.number
    seen = each.bound if drop and each.bound is not None else each.value
    return f"{name}: {write(seen)}, limit {write(each.threshold)}"


def _distance(each: Judged) -> tuple[bool, float]:
    """Failed before undecided, and the larger the distance from the limit the earlier."""
    seen = each.bound if each.bound is not None else each.value
    far = abs(seen - each.threshold) if seen is not None and each.threshold is not None else 0.0
    return each.status != "failed", -far
