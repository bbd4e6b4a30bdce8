"""`compress bench`: latency, throughput and memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from compress.cli.running import model_options, options_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from compress.bench.latency import Latency, Times


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 8), show_default=True,
              metavar="N", help="Batch size; may be given several times.")  # fmt: skip
@click.option(
    "--pairs", type=click.IntRange(1), metavar="N", help="Rounds of each row; by default as many as gates use."
)
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Threads of the runtime; 0 means as many as there are cores.")  # fmt: skip
@model_options
def command(a: str, b: str | None, **given: Any) -> None:
    """Time the towers of A, or of B against A: in turn, in one process, on the same inputs.

    A and B are artifacts, pocket-clip, model folders or hub ids; what is no artifact is exported in float first.
    """
    from compress.bench.latency import Plan, measure, measure_alone
    from compress.pipeline.runnable import runnable

    options = options_of(given)
    plan = Plan(given["batches"], threads=given["threads"], progress=options.progress)
    if given["pairs"] is not None:
        plan = replace(plan, pairs=given["pairs"])
    folders = [runnable(each, options, given["allow_pickle"]) for each in (a, b) if each is not None]
    if len(folders) == 2:
        found = measure(folders[0], folders[1], plan)
        data, table = {"a": a, "b": b, **found.data()}, _paired(found)
    else:
        times, memory = measure_alone(folders[0], plan)
        data, table = {"a": a, "rows": [each.data() for each in times], "memory": memory}, _alone(times, memory)
    if given["as_json"]:
        click.echo(json.dumps({"version": 1, **data}, indent=2))
    else:
        from rich.console import Console

        Console().print(table)


def _paired(found: Latency) -> Table:
    from compress.report import wording
    from compress.report.inspection import plain_table

    table = plain_table("Tower", "Batch", "A", "B", "B / A", "B per second")
    for row in (each.data() for each in found.rows):
        ratio = row["ratio"]
        span = f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"
        times = [f"{row[side]['median']:.2f} ms" for side in ("reference_ms", "candidate_ms")]
        table.add_row(row["tower"], str(row["batch"]), *times, span, f"{row['candidate_per_second']:,.0f}")
    sizes = found.reference_memory, found.candidate_memory
    table.add_row("peak memory", "", *map(wording.size, sizes), wording.number(wording.ratio(sizes[1], sizes[0])), "")
    return table


def _alone(times: Sequence[Times], memory: int) -> Table:
    from compress.report import wording
    from compress.report.inspection import plain_table

    table = plain_table("Tower", "Batch", "A", "Fastest to slowest", "Per second")
    for row in (each.data() for each in times):
        ms = row["ms"]
        span = f"{ms['min']:.2f} to {ms['max']:.2f} ms"
        table.add_row(row["tower"], str(row["batch"]), f"{ms['median']:.2f} ms", span, f"{row['per_second']:,.0f}")
    table.add_row("peak memory", "", wording.size(memory), "", "")
    return table
