"""`compress policy`: list, show, check and compare policies, and the digest that a pipeline pins."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from compress.artifact import layout
from compress.core.errors import DocumentError, UsageError
from compress.gates import policy_file

if TYPE_CHECKING:
    from compress.gates.difference import Difference

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
_COLOURS: Final = {"loosened": "red", "tightened": "green", "changed": None}
_LOOSENED: Final = 3


@click.group()
def command() -> None:
    """List, show, check and compare policies.

    A policy is named by its file, by the name of one that ships with the package, or by an artifact that was gated
    with it.
    """


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show the policies that ship with the package."""
    rows = [_row(path) for path in policy_file.bundled_policies().values()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.secho(row["name"], bold=True)
        click.echo(f"  {row['gates']} gates on {', '.join(row['tasks']) or 'no task'}; {row['digest']}")
        if row["description"]:
            click.echo(f"  {row['description']}")


def _row(path: Path) -> dict[str, Any]:
    resolved = policy_file.read(path).require_merged()
    data = resolved.data
    return {
        "name": data["name"],
        "digest": resolved.digest,
        "tasks": list(data.get("tasks", {})),
        "gates": len(data["gates"]),
        "description": data.get("description", ""),
    }


@command.command()
@click.argument("name")
@click.option("--resolved", is_flag=True, help="With all that it extends, as an artifact records it.")
@_JSON
def show(name: str, resolved: bool, as_json: bool) -> None:
    """Print the policy NAME; with --json what it says with all that it extends, and its digest."""
    path = _file(name)
    if as_json:
        merged = policy_file.read(path).require_merged()
        click.echo(json.dumps({"digest": merged.digest, "policy": merged.data}, indent=2))
    else:
        click.echo(policy_file.written(path) if resolved else path.read_bytes(), nl=False)


@command.command()
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@_JSON
@click.pass_context
def check(ctx: click.Context, policies: tuple[str, ...], as_json: bool) -> None:
    """Tell everything that is wrong in policies and in those they extend. Ends 0 if nothing is, else 2."""
    reports = [_check(name) for name in policies]
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    else:
        for report in reports:
            told = f"ok {report['policy']} {report['digest']}" if report["ok"] else report["error"]
            click.echo(told, err=not report["ok"])
    if not all(report["ok"] for report in reports):
        ctx.exit(2)


def _check(name: str) -> dict[str, Any]:
    """What checking one policy found: its digest, or its problems."""
    from compress.gates.policy import load_policy

    made: dict[str, Any] = {"policy": name, "ok": False, "digest": None, "problems": [], "error": ""}
    try:
        return made | {"ok": True, "digest": load_policy(_file(name)).digest}
    except DocumentError as error:
        return made | {"problems": [asdict(each) for each in error.problems], "error": str(error)}
    except UsageError as error:
        return made | {"error": str(error)}


@command.command()
@click.argument("name")
@_JSON
def digest(name: str, as_json: bool) -> None:
    """Print the digest of the policy NAME with all that it extends: what `verify --policy-digest` takes."""
    from compress.gates.policy import load_policy

    policy = load_policy(_file(name))
    if as_json:
        click.echo(json.dumps({"name": policy.name, "digest": policy.digest}, indent=2))
    else:
        click.echo(policy.digest)


@command.command()
@click.argument("old")
@click.argument("new")
@_JSON
@click.pass_context
def diff(ctx: click.Context, old: str, new: str, as_json: bool) -> None:
    """Tell what NEW asks for that OLD did not, and what it no longer asks for.

    Ends 3 if anything was loosened, else 0. A difference of which nobody can tell the direction counts as loosened.
    """
    from compress.gates import difference
    from compress.gates.policy import load_policy

    both = load_policy(_file(old)), load_policy(_file(new))
    found = difference.differences(*both)
    code = _LOOSENED if difference.loosened(found) else 0
    if as_json:
        named = {
            key: {"name": each.name, "digest": each.digest} for key, each in zip(("old", "new"), both, strict=True)
        }
        told = {**named, "differences": [asdict(each) for each in found], "loosened": code != 0, "exit_code": code}
        click.echo(json.dumps({"version": 1, **told}, indent=2))
    else:
        for key, each in zip(("old", "new"), both, strict=True):
            click.echo(f"{key}  {each.name} {each.digest}")
        _tell(found)
    ctx.exit(code)


def _tell(found: Iterable[Difference]) -> None:
    """The loosened ones first: they are what somebody has to look at."""
    ordered = sorted(found, key=lambda each: list(_COLOURS).index(each.kind))
    for each in ordered:
        meaning = f"  ({each.meaning})" if each.meaning else ""
        click.secho(f"{each.kind:9}  ", fg=_COLOURS[each.kind], nl=False)
        click.echo(f"{each.where}  {each.what}: {each.old} -> {each.new}{meaning}")
    counts = {kind: sum(each.kind == kind for each in ordered) for kind in _COLOURS}
    click.echo(", ".join(f"{count} {kind}" for kind, count in counts.items()) if ordered else "no difference")


def _file(named: str) -> Path:
    """The file of a policy that goes by a path, a bundled name or an artifact."""
    if not Path(named).is_dir():
        return policy_file.find_policy(named)
    inside = Path(named) / layout.POLICY
    if not inside.is_file():
        raise UsageError("this folder holds no policy", named, f"an artifact that was gated has {layout.POLICY}")
    return inside
