"""`compress export`: a model as it is, for a target, gated for parity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from compress.cli.running import WAIVERS, execute, model_options, options_of, target_names
from compress.cli.signing import signing_options
from compress.core.errors import UsageError
from compress.core.names import did_you_mean


@click.command()
@click.argument("model")
@click.option("--target", required=True, metavar="NAME", help="The runtime, such as onnxruntime-cpu.")
@click.option("--policy", default="export_parity", show_default=True, metavar="NAME", help="What must hold.")
@click.option("--name", metavar="NAME", help="Name of the artifact; by default the model's.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="N", help="Seed.")
@click.option("--replace", is_flag=True, help="Replace a released artifact of this name.")
@WAIVERS
@signing_options
@model_options
@click.pass_context
def command(ctx: click.Context, /, model: str, **given: Any) -> None:
    """Export MODEL in float for a target and release it if it still is the same model.

    MODEL is pocket-clip, a model folder or a hub id. Ends 0 only if the artifact was released; 3 if a gate failed or is
    waived, 4 if one could not be decided.
    """
    if given["target"] not in target_names():
        raise UsageError(f"no target {given['target']!r}", "--target", did_you_mean(given["target"], target_names()))
    from pydantic import ValidationError

    from compress.recipe.schema import Recipe
    from compress.recipe.sources import NamedModel

    try:
        recipe = Recipe(
            version=1,
            name=_named_after(model) if given["name"] is None else given["name"],
            model=NamedModel(source=model, allow_pickle=given["allow_pickle"]),
            targets=(given["target"],),
            policy=given["policy"],
            seed=given["seed"],
            steps=(),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(first["msg"], f"--{first['loc'][0]}") from None
    ctx.exit(execute(recipe, Path("command line"), options_of(given), given["as_json"]))


def _named_after(model: str) -> str:
    """The last part of a folder or hub id in the letters that a name may have."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", Path(model).resolve().name.lower())
    return plain.strip("-_")[:64] or "model"
