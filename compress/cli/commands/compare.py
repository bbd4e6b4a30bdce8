"""`compress compare`: two artifacts side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="List every slice, not only those that differ most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(a: Path, b: Path, verbose: bool, as_json: bool) -> None:
    """Show artifacts A and B side by side: verdict, size, latency, scores, and the gates that came out differently."""
    from rich.console import Console

    from compress.report import comparison, document, side_by_side

    compared = comparison.compare(document.read(a), document.read(b))
    if as_json:
        click.echo(json.dumps(compared.to_data(), indent=2))
    else:
        Console().print(side_by_side.SideBySide(compared, verbose))
