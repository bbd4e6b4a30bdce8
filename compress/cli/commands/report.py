"""`compress report`: the HTML report of an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from compress.artifact import layout
from compress.core.errors import UsageError


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Render it again to this file (- is stdout).",
)
def command(artifact: Path, output: str | None) -> None:
    """Print where the HTML report of ARTIFACT is, or with -o render it again from the gate report."""
    from compress.report import document

    report = document.read(artifact)
    if output is None:
        click.echo(str(_existing(artifact)))
        return
    if output != "-" and artifact.resolve() in Path(output).resolve().parents:
        raise UsageError("an artifact does not change", output, "write the report to a file outside of it")
    from compress.report import page

    with click.open_file(output, "w", encoding="utf-8", atomic=True) as opened:
        opened.write(page.render(report))
    if output != "-":
        click.echo(output)


def _existing(artifact: Path) -> Path:
    file = artifact / layout.HTML_REPORT
    if not file.is_file():
        raise UsageError("this artifact has no HTML report", str(file), "render one with -o FILE")
    return file
