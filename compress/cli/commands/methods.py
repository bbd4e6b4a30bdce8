"""`compress methods`: what a recipe's `use:` may say."""

from __future__ import annotations

import importlib
import json

import click

from compress.steps import method_names, spec_of


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(as_json: bool) -> None:
    """List the compression methods with their options."""
    rows = [{"name": name, "summary": _summary(name), "options": _options(name)} for name in method_names()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.secho(str(row["name"]), bold=True)
        click.echo(f"  {row['summary']}")
        for option, told in _options(str(row["name"])).items():
            click.echo(f"    {option}: {told}")


def _summary(name: str) -> str:
    text = (importlib.import_module(f"compress.steps.{name}").__doc__ or "").strip().splitlines()[0]
    return text.split(": ", 1)[-1]


def _options(name: str) -> dict[str, str]:
    fields = spec_of(name).model_fields
    return {key: f"{field.description or ''} [{field.default!r}]".strip() for key, field in fields.items()}
