"""`compress run`: run any recipe."""

from __future__ import annotations

from typing import Any

import click

from compress.cli.running import recipe_options, run_recipe


@click.command()
@recipe_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Run a recipe's steps in the order written: compress, measure, and release or block.

    Ends 0 only if the artifact was released; 3 if a gate failed or is waived, 4 if one could not be decided.
    """
    ctx.exit(run_recipe(given))
