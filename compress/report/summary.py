"""The verdict in short: a table for the terminal, and the same table in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from compress.report import wording
from compress.report.document import Document
from compress.report.ladder import Ladder
from compress.report.rows import PAIRED, Row, rows, sentence

SIGNS: Final = {"passed": "✓", "failed": "✕", "inconclusive": "?", "waived": "!", "ungated": "–"}
COLOURS: Final = {
    "passed": "green",
    "failed": "red",
    "inconclusive": "yellow",
    "waived": "magenta",
    "ungated": "bright_black",
}
TITLES: Final = {
    "passed": "PASSED",
    "failed": "BLOCKED",
    "inconclusive": "INCONCLUSIVE",
    "waived": "WAIVED, NOT PASSED",
    "ungated": "UNGATED",
}
_COLUMNS: Final = ("Reference", "Candidate", "Drop or value", "Compared", "Limit", "Items")
_NAMED: Final = 3
"""Damaged slices that are named without being asked."""

_LAYOUTS: Final = ((_COLUMNS, False), (_COLUMNS, True), (("Compared", "Limit"), True))
"""Which numbers are shown, and whether the slice stands under the metric: widest first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Prints itself with rich, as wide as there is room; `verbose` lists every passed slice."""

    report: Document
    verbose: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield headline(self.report)
        shown = rows(self.report, self.verbose)
        if shown:
            yield _fitting([_table(shown, *layout) for layout in _LAYOUTS], console, options)
        for row in shown:
            if _needs_words(row):
                yield Text(f"{SIGNS[row.finding.status]} {row.finding.metric}, {row.place}: {row.note}", style="dim")
        for line in unused(self.report):
            yield Text(line, style="yellow")
        if told := damaged(self.report, len(self.report.damage.slices) if self.verbose else _NAMED):
            yield Text(told, style="dim")
        if self.report.rescue is not None:
            yield Ladder(self.report)


def headline(report: Document) -> Text:
    """`✕ BLOCKED  int4_naive` and why."""
    mark = Text(f"{SIGNS[report.status]} {TITLES[report.status]}", style=f"bold {COLOURS[report.status]}")
    return Text.assemble(mark, "  ", (report.name, "bold"), "\n", sentence(report))


def unused(report: Document) -> tuple[str, ...]:
    """A line for every waiver that nothing needed."""
    left = report.waivers.unused if report.waivers else ()
    return tuple(
        f"unused waiver: {each.metric} {each.rule}, {each.slice or 'all items'} (until {each.expires})" for each in left
    )


def damaged(report: Document, most: int) -> str:
    """What is worse for sure, surest first, or nothing: `damaged for sure: reading size=6-8 (-5.3 pt, p 1e-9)`."""
    found = report.damage.slices
    named = [
        f"{each.metric}{f' {each.slice}' if each.slice else ''} "
        f"({wording.points(None if each.drop is None else -each.drop, 1)}, p {wording.probability(each.adjusted)})"
        for each in found[:most]
    ]
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return f"damaged for sure: {', '.join(named)}{rest}" if named else ""


def brief(report: Document) -> str:
    """Headline, table and digest in Markdown: what a pipeline shows of a run."""
    title = f"## {SIGNS[report.status]} {TITLES[report.status]}  {escaped(report.name)}"
    digests = f"Artifact `{report.digest}`" + (f", policy `{report.policy.digest}`" if report.policy.digest else "")
    parts = [
        title,
        escaped(sentence(report)),
        markdown(report) if report.findings else "",
        escaped(damaged(report, _NAMED)),
        digests,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def markdown(report: Document, verbose: bool = False) -> str:
    """The rows as a Markdown table, and below it what is waived, why and until when."""
    head = ("Verdict", "Metric", "Slice", *_COLUMNS)
    lines = [head, tuple("---:" if name in _COLUMNS else "---" for name in head)]
    for row in rows(report, verbose):
        lines.append(tuple(map(escaped, (_mark(row), row.finding.metric, row.place, *_numbers(row).values()))))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    waived = [f"{row.finding.metric}, {row.place}: {row.note}" for row in rows(report, True) if row.finding.waiver]
    notes = "\n".join(f"- {escaped(each)}" for each in (*waived, *unused(report)))
    return f"{table}\n\n{notes}" if notes else table


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table as well; underscores inside a word need nothing."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", "&#58;//")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", re.sub(r"([\\`*\[\]|~#!$])", r"\\\1", text))
    return " ".join(text.split())


def _fitting(tables: list[Table], console: Console, options: ConsoleOptions) -> Table:
    """The first table that there is room for, or the last."""
    unlimited = options.update_width(10_000)
    fit = (each for each in tables if console.measure(each, options=unlimited).maximum <= options.max_width)
    return next(fit, tables[-1])


def _table(shown: tuple[Row, ...], columns: tuple[str, ...], stacked: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Verdict", no_wrap=True)
    for name in ("Metric and slice",) if stacked else ("Metric", "Slice"):
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        names = (f"{row.finding.metric}\n  {row.place}",) if stacked else (row.finding.metric, row.place)
        numbers = _numbers(row)
        cells = (*names, *(numbers[name] for name in columns))
        table.add_row(Text(_mark(row), style=COLOURS[row.finding.status]), *map(Text, cells))
    return table


def _numbers(row: Row) -> dict[str, str]:
    """Column -> cell."""
    cells = row.reference, row.candidate, row.value, row.compared, row.limit, wording.count(row.finding.n)
    return dict(zip(_COLUMNS, cells, strict=True))


def _mark(row: Row) -> str:
    return f"{SIGNS[row.finding.status]} {row.finding.status}"


def _needs_words(row: Row) -> bool:
    """Whether the numbers alone do not say why: a drop over its margin does."""
    blocks = row.finding.status != "passed"
    shown = row.finding.status == "failed" and row.finding.rule in PAIRED
    return blocks and bool(row.note) and not shown
