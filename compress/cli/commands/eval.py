"""`compress eval`: the scores of one model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from compress.cli.running import model_options, options_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from compress.pipeline.scoring import Level


@click.command()
@click.argument("model")
@click.option(
    "--task", "tasks", multiple=True, required=True, metavar="NAME", help="A task; may be given several times."
)
@click.option("--split", default="release", show_default=True, metavar="NAME", help="Which part of the data.")
@click.option("--items", type=click.IntRange(1), metavar="N", help="How many items; by default what the task says.")
@click.option("--items-per-slice", type=click.IntRange(1), metavar="N", help="At least so many in every slice.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of rendered items."
)
@model_options
def command(model: str, **given: Any) -> None:
    """Score MODEL on tasks, with 95 % intervals.

    MODEL is an artifact, pocket-clip, a model folder or a hub id; what is no artifact is exported in float first.
    """
    from compress.data.items import Request
    from compress.evals.encode import How
    from compress.pipeline import scoring
    from compress.pipeline.runnable import runnable

    options = options_of(given)
    request = Request(
        given["split"], given["items"], given["items_per_slice"], given["seed"], options.data_roots, options.progress
    )
    folder = runnable(model, options, given["allow_pickle"])
    found = scoring.levels(folder, given["tasks"], request, How(progress=options.progress))
    if given["as_json"]:
        click.echo(json.dumps({"version": 1, "model": model, "scores": scoring.to_data(found)}, indent=2))
    else:
        from rich.console import Console

        Console().print(_table(found))


def _table(found: Sequence[Level]) -> Table:
    from compress.report import wording
    from compress.report.inspection import plain_table

    table = plain_table("Metric and slice", "Items", "Value", "95 % interval")
    for level in found:
        name = f"  {level.dimension}={level.slice}" if level.slice is not None else level.metric
        ends = [wording.number(end) for end in (level.score.low, level.score.high)]
        table.add_row(name, wording.count(level.score.n), wording.number(level.score.value), " to ".join(ends))
    return table
