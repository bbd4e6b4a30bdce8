"""What the commands that run a recipe share: their options, and how a result is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli import signing
from compress.cli.terminal import progress
from compress.core import launched
from compress.core.errors import UsageError
from compress.gates.policy_file import bundled_policies
from compress.recipe.load import find_recipe, load
from compress.recipe.schema import Recipe
from compress.steps import spec_of

if TYPE_CHECKING:
    from compress.pipeline.options import Options
    from compress.recipe.waivers import Waivers

WAIVERS = click.option(
    "--waivers", "waivers", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Findings that somebody answers for; what is waived is recorded so and ends 3, it never passes.",
)  # fmt: skip
_RECIPE = (
    click.option("--recipe", "recipe", required=True, metavar="FILE", help="A recipe file, or a bundled one's name."),
    click.option("--model", metavar="SOURCE", help="Another model: a folder, or a hub id such as owner/name."),
    click.option("--policy", metavar="NAME", help="Another policy, by path or by name."),
    click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change an entry: steps.0.block=64."),
    click.option("--seed", type=int, metavar="N", help="Another seed."),
    click.option("--resume", is_flag=True, help="Go on after the last step that an interrupted run has finished."),
    click.option("--replace", is_flag=True, help="Replace a released artifact of this name."),
    WAIVERS,
    *signing.OPTIONS,
)  # fmt: skip
_SHARED = (
    click.option("--allow-pickle", is_flag=True, help="Read pickled weights where there are no safetensors."),
    click.option("--output", type=click.Path(path_type=Path), default=Path("artifacts"), show_default=True,
                 help="Folder that gets staging/, released/, blocked/ and cache/."),
    click.option("--data-root", "roots", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
                 help="Where data folders are looked for; the working directory always is."),
    click.option("--offline", is_flag=True, help="Reach no network: models and data come from the cache or a folder."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
)  # fmt: skip


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that runs a recipe."""
    return _with((*_RECIPE, *_SHARED), function)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that opens a model without a recipe."""
    return _with(_SHARED, function)


def _with(options: Iterable[Callable[..., Any]], function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(tuple(options)):
        function = option(function)
    return function


def read_recipe(given: dict[str, Any], kind: str | None = None) -> tuple[Recipe, Path]:
    """The recipe with the command line's changes. Raises UsageError when it has no step of the wanted kind."""
    file = find_recipe(given["recipe"])
    overrides = list(given["overrides"])
    if given["model"]:
        overrides.insert(0, f"model={json.dumps({'source': given['model']})}")  # so that --set model.… is about it
    for key in ("policy", "seed"):
        if given[key] is not None:
            overrides.append(f"{key}={json.dumps(given[key])}")
    if given["allow_pickle"]:
        overrides.append("model.allow_pickle=true")
    recipe = load(file, spec_of, overrides, targets=target_names(), policies=bundled_policies())
    if kind and not any(step.use.startswith(f"{kind}.") for step in recipe.steps):
        raise UsageError(f"the recipe has no {kind} step", str(file), "`compress run` runs any recipe")
    return recipe, file


def target_names() -> tuple[str, ...]:
    """Names of all targets, as a recipe writes them, without importing any."""
    from compress.core import names

    return tuple(name.replace("_", "-") for name in names.available("compress.targets") if "." not in name)


def options_of(given: dict[str, Any]) -> Options:
    """What the command line says about a run."""
    from compress.pipeline.options import Options

    follower = launched.rank() > 0
    shown = progress(given["quiet"] or follower)
    if launched.only_one_came():
        shown.say("accelerate started one process only: without GPUs, use accelerate launch --multi_gpu, or torchrun")
    return Options(
        output=given["output"],
        data_roots=(*given["roots"], Path()),
        offline=given["offline"],
        replace=given.get("replace", False),
        resume=given.get("resume", False),
        signing=signing.signing_of(given),
        waivers=_waivers(given.get("waivers")),
        progress=shown,
        follower=follower,
    )


def _waivers(file: Path | None) -> Waivers | None:
    """The waivers of a file, none of them expired."""
    if file is None:
        return None
    from compress.recipe import waivers

    read = waivers.read(file)
    read.require_valid(str(file))
    return read


def run_recipe(given: dict[str, Any], kind: str | None = None) -> int:
    """Run a recipe, show its verdict and where the artifact is; returns the exit code."""
    recipe, file = read_recipe(given, kind)
    return execute(recipe, file, options_of(given), given["as_json"])


def execute(recipe: Recipe, file: Path, options: Options, as_json: bool) -> int:
    """Run a recipe that was read already, and show what came out."""
    from compress.pipeline.run import follow, run

    if options.follower:
        follow(recipe, file, options)
        return 0
    result = run(recipe, file, options)
    if as_json:
        from compress.artifact import layout

        click.echo((result.path / layout.GATE_REPORT).read_text(), nl=False)
    else:
        from rich.console import Console

        from compress.report.summary import Summary

        Console().print(Summary(result.report))
        click.echo(f"\n{result.path}")
        if options.signing:
            click.echo(f"signed by key {options.signing.key_id}")
        click.echo(f"{result.path / 'compress' / 'report.html'}")
    return int(result.report.exit_code or 0)
