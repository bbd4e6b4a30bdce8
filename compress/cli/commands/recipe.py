"""`compress recipe`: list, show and check recipes, and the JSON Schema that editors complete them with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from compress.cli.running import target_names
from compress.core.errors import DocumentError, Problem, UsageError
from compress.gates.policy_file import bundled_policies
from compress.recipe import document
from compress.recipe.load import bundled_recipes, dump, find_recipe, load
from compress.recipe.schema import json_schema
from compress.steps import method_names, spec_of

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


@click.group()
def command() -> None:
    """List, show and check recipes."""


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show the recipes that ship with the package."""
    rows = [_row(name, document.read(path).data) for name, path in bundled_recipes().items()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.secho(row["name"], bold=True)
        click.echo(f"  {' -> '.join(row['steps']) or 'no steps'}; policy {row['policy']}")
        if row["description"]:
            click.echo(f"  {row['description']}")


def _row(name: str, data: dict[str, Any]) -> dict[str, Any]:
    steps = [step["use"] for step in data["steps"]]
    return {"name": name, "steps": steps, "policy": data["policy"], "description": data.get("description", "")}


@command.command()
@click.argument("name")
@click.option("--resolved", is_flag=True, help="With all defaults filled in, as an artifact records it.")
def show(name: str, resolved: bool) -> None:
    """Print the recipe NAME, which is a path or the name of one that ships with the package."""
    path = find_recipe(name)
    text = dump(load(path, spec_of)) if resolved else path.read_text("utf-8")
    click.echo(text, nl=False)


@command.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change an entry first: steps.0.block=64."
)
@_JSON
@click.pass_context
def check(ctx: click.Context, recipes: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell everything that is wrong in recipes. Ends 0 if nothing is, else 2."""
    reports = [_check(name, overrides) for name in recipes]
    if as_json:
        click.echo(json.dumps([asdict(report) | {"ok": report.ok} for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(report.text(), err=not report.ok)
    if not all(report.ok for report in reports):
        ctx.exit(2)


@dataclass(frozen=True)
class _Report:
    """What checking one recipe found: its digest, the problems of the file, or why it could not be read."""

    recipe: str
    digest: str | None = None
    problems: tuple[Problem, ...] = field(default=())
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.digest is not None

    def text(self) -> str:
        return f"ok {self.recipe} {self.digest}" if self.ok else self.error


def _check(name: str, overrides: tuple[str, ...]) -> _Report:
    try:
        recipe = load(find_recipe(name), spec_of, overrides, targets=target_names(), policies=bundled_policies())
        return _Report(name, recipe.digest)
    except DocumentError as error:
        return _Report(name, problems=error.problems, error=str(error))
    except UsageError as error:
        return _Report(name, error=str(error))


@command.command()
def schema() -> None:
    """Print the JSON Schema of a recipe with the options of all methods, for an editor's completion and checks."""
    specs = {name: spec_of(name) for name in method_names()}
    click.echo(json.dumps(json_schema(specs), indent=2))
