"""`compress lint`: whether files keep the rules of a target."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compress.core.errors import UsageError

if TYPE_CHECKING:
    from compress.targets.lint.view import Shapes


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", default="tensorrt", show_default=True, metavar="NAME", help="Whose rules.")
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Profile shapes; by "
              "default those of the artifact that PATH is, or lies in.")  # fmt: skip
@click.option("--rules", is_flag=True, help="List the rules as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, /, path: Path, **given: object) -> None:
    """Check PATH, an ONNX file or an artifact, against the rules of a target.

    Ends 0 if every rule is kept and 3 if one is not. Nothing is run, so it needs neither the target nor a GPU.
    """
    from compress.targets.lint import check

    target, profile = str(given["target"]), given["profile"]
    rules = check.catalogue(target)
    found = check.lint(target, _files(path, profile if isinstance(profile, Path) else None))
    rows = [{"file": file.name, **asdict(each)} for file, findings in found.items() for each in findings]
    if given["as_json"]:
        told = {"version": 1, "target": target, "files": [file.name for file in found], "findings": rows}
        listed = {"rules": [asdict(rule) for rule in rules]} if given["rules"] else {}
        click.echo(json.dumps({**told, **listed}, indent=2))
    else:
        for rule in rules if given["rules"] else ():
            click.echo(f"{rule.id}  {rule.what} Because {rule.why}.")
        for row in rows:
            click.echo(f"{row['file']}  {row['rule']} {row['where']}: {row['what']}")
        click.echo(f"{len(found)} file{'s' * (len(found) != 1)}, {len(rows)} finding{'s' * (len(rows) != 1)}")
    if rows:
        ctx.exit(3)


def _files(path: Path, profile: Path | None) -> dict[Path, Shapes | None]:
    """Every ONNX file of an artifact, or the one that is named, with the shapes of its tower."""
    from compress.artifact import layout
    from compress.targets.graph.profile import read

    folder = path if path.is_dir() else path.parent.parent
    files = sorted((path / "onnx").glob("*.onnx")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError("no such ONNX file, and no artifact with one", str(path))
    kept = profile or (folder / layout.PROFILE_SHAPES)
    towers = read(kept) if profile is not None or kept.is_file() else {}
    return {file: towers.get(file.name.split("_")[0]) for file in files}
