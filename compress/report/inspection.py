"""What is in an artifact, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from compress.report import wording
from compress.report.document import Document
from compress.report.summary import Summary


@dataclass(frozen=True, slots=True)
class Inspection:
    """Prints itself with rich, as wide as there is room. `files` maps every path of the manifest to its size."""

    report: Document
    files: Mapping[str, int]
    verbose: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Summary(self.report, self.verbose)
        yield Text()
        yield _towers(self.report)
        yield Text()
        if self.verbose:
            yield _files(self.files)
            yield Text()
        yield _facts(self.report, self.files)


def _towers(report: Document) -> RenderableType:
    """One row a model file, and below it what its bytes are spent on."""
    if not report.sizes:
        return Text("Sizes were not measured.", style="dim")
    table = plain_table("File", "Reference", "Candidate", "Ratio")
    for each in report.sizes:
        ratio = wording.number(wording.ratio(each.candidate_bytes, each.reference_bytes))
        sizes = wording.size(each.reference_bytes), wording.size(each.candidate_bytes)
        tower = f"{each.file} ({each.tower})" if each.tower else each.file
        table.add_row(*map(Text, (tower, *sizes, ratio)))
        for part, count in each.parts.items():
            table.add_row(Text(f"  {part}", style="dim"), Text(), Text(wording.size(count), style="dim"), Text())
    return table


def _files(files: Mapping[str, int]) -> Table:
    table = plain_table("All files", "Size")
    for path, size in files.items():
        table.add_row(Text(path), Text(wording.size(size)))
    return table


def _facts(report: Document, files: Mapping[str, int]) -> Table:
    """Where it comes from and the digests that say so, one a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    model = (report.model.source, report.model.revision, report.model.architecture)
    facts = {
        "model": " ".join(each for each in model if each) or "not recorded",
        "target": " ".join(each for each in (report.target.name, report.target.proof) if each) or "not recorded",
        "steps": ", ".join(each.use for each in report.steps) or "not recorded",
        "recipe": " ".join(each for each in (report.recipe.name, report.recipe.digest) if each) or "not recorded",
        "policy": " ".join(each for each in (report.policy.name, report.policy.digest) if each) or "none",
        "digest": report.digest,
        "files": f"{len(files)}, {wording.size(sum(files.values()))}",
        "created": report.created or "not recorded",
    }
    for name, value in facts.items():
        table.add_row(name, Text(value))
    return table


def plain_table(first: str, *numbers: str) -> Table:
    """A table of one column of words and the others of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table
