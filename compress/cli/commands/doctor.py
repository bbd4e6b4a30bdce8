"""`compress doctor`: what is installed here, what clashes, what this machine can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

_SIGNS = {"ok": "ok", "warning": "!!", "missing": "XX"}


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("artifacts"), show_default=True,
              help="Folder whose disk is looked at.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, output: Path, as_json: bool) -> None:
    """Check versions against what compress needs, package clashes, runtime providers, processor, memory and disk.

    Ends 5 if something required is missing or too old, else 0.
    """
    from compress.cli import health

    checks = health.examine(output)
    lacking = [each for each in checks if each.status == "missing"]
    if as_json:
        told = {"version": 1, "ok": not lacking, "checks": [asdict(each) for each in checks]}
        click.echo(json.dumps(told, indent=2))
    else:
        for each in checks:
            colour = {"ok": None, "warning": "yellow", "missing": "red"}[each.status]
            click.secho(f"{_SIGNS[each.status]}  {each.name:22} {each.found}", fg=colour)
            if each.hint:
                click.echo(f"    {each.hint}")
    if lacking:
        ctx.exit(5)
