"""A comparison of two artifacts, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from compress.report import wording
from compress.report.comparison import Comparison, Pair
from compress.report.inspection import plain_table
from compress.report.summary import COLOURS, SIGNS, TITLES

_SHOWN = 10  # scores, those that differ most


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Prints itself with rich; `verbose` shows every score rather than those that differ most."""

    compared: Comparison
    verbose: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        both = self.compared
        for letter, report in (("A", both.a), ("B", both.b)):
            mark = Text(f"{SIGNS[report.status]} {TITLES[report.status]}", style=f"bold {COLOURS[report.status]}")
            yield Text.assemble((f"{letter}  ", "bold"), mark, f"  {report.name}  ", (report.digest[:12], "dim"))
        for note in both.notes:
            yield Text(note, style="yellow")
        for table in (_sizes(both.sizes), _times(both.latency), self._scores(), _disagreements(both)):
            if table.row_count:
                yield Text()
                yield table

    def _scores(self) -> Table:
        pairs = sorted(self.compared.scores, key=lambda pair: -abs(pair.difference or 0.0))
        shown = self.compared.scores if self.verbose else pairs[:_SHOWN]
        left = len(pairs) - len(shown)
        table = plain_table(f"Scores ({left} more with --verbose)" if left else "Scores", "A", "B", "B - A")
        for pair in shown:
            level, change = (wording.share, wording.points) if pair.share else (wording.number, wording.number)
            _add(table, pair.what, level(pair.a), level(pair.b), change(pair.difference))
        return table


def _sizes(pairs: Iterable[Pair]) -> Table:
    table = plain_table("Size", "A", "B", "B / A")
    for pair in pairs:
        _add(
            table, pair.what, wording.size(pair.a), wording.size(pair.b), wording.number(wording.ratio(pair.b, pair.a))
        )
    return table


def _times(pairs: Iterable[Pair]) -> Table:
    """Each against its own reference in its own run: the only times of two runs that can be compared."""
    table = plain_table("Latency against the reference", "A", "B", "B - A")
    for pair in pairs:
        _add(table, pair.what, *map(wording.number, (pair.a, pair.b, pair.difference)))
    return table


def _disagreements(both: Comparison) -> Table:
    table = plain_table("Gates that differ", "A", "B")
    for each in both.findings:
        _add(
            table,
            f"{each.metric} {each.rule}, {each.slice or 'all items'}",
            each.a or "not asked",
            each.b or "not asked",
        )
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))
