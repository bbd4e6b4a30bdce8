"""`compress inspect`: what is in an artifact."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="List every passed slice and every file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: the gate report and all files.")
def command(artifact: Path, verbose: bool, as_json: bool) -> None:
    """Show what ARTIFACT contains: towers, files, bytes by what they are spent on, verdict, digests.

    It shows what the artifact says of itself; `compress verify` checks it.
    """
    from rich.console import Console

    from compress.artifact import manifest
    from compress.report import document, inspection

    report = document.read(artifact)
    listed = manifest.read(artifact)
    if as_json:
        data = report.model_dump(mode="json") | {"files": [asdict(entry) for entry in listed.entries]}
        click.echo(json.dumps(data, indent=2))
    else:
        files = {entry.path: entry.size for entry in listed.entries}
        Console().print(inspection.Inspection(report, files, verbose))
