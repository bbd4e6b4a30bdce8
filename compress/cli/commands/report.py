"""`compress report`: the HTML report of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from compress.artifact import layout
from compress.core.errors import UsageError

if TYPE_CHECKING:
    from compress.report.document import Document


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Render it again to this file (- is stdout).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "markdown"]),
    default="html",
    show_default=True,
    help="markdown: the verdict and its table alone, for the summary of a pipeline's run.",
)
def command(artifact: Path, output: str | None, form: str) -> None:
    """Print where the HTML report of ARTIFACT is, or with -o render it again from the gate report.

    Markdown goes to stdout where no file is named.
    """
    from compress.report import document

    report = document.read(artifact)
    if form == "markdown":
        output = output or "-"
    if output is None:
        click.echo(str(_existing(artifact)))
        return
    if output != "-" and artifact.resolve() in Path(output).resolve().parents:
        raise UsageError("an artifact does not change", output, "write the report to a file outside of it")
    with click.open_file(output, "w", encoding="utf-8", atomic=True) as opened:
        opened.write(_rendered(report, form))
    if output != "-":
        click.echo(output)


def _rendered(report: Document, form: str) -> str:
    if form == "markdown":
        from compress.report.summary import brief

        return brief(report)
    from compress.report import page

    return page.render(report)


def _existing(artifact: Path) -> Path:
    file = artifact / layout.HTML_REPORT
    if not file.is_file():
        raise UsageError("this artifact has no HTML report", str(file), "render one with -o FILE")
    return file
