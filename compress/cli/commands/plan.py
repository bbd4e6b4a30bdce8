"""`compress plan`: what a recipe would do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from compress.cli.running import options_of, read_recipe, recipe_options

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from compress.pipeline.plan import Plan, StepPlan

SHOWN = 12
"""Layers whose damage is listed without being asked."""


@click.command()
@recipe_options
@click.option("--verbose", "-v", is_flag=True, help="List every module, not only groups of equal ones.")
@click.option("--sensitivity", "sensitive", is_flag=True, help="Measure what each layer alone does to the embeddings.")
@click.pass_context
def command(ctx: click.Context, /, verbose: bool, sensitive: bool, **given: Any) -> None:
    """Show what a recipe would do: modules, bits, padding, sizes, memory, refusals, and the items its gates need.

    The model is loaded and the steps are tried on a few rendered scenes; nothing is kept. Of pruned towers the
    latency is measured briefly, and predicted for more and for less. With --sensitivity the steps are tried on the
    recipe's own calibration data, and then each layer by itself.
    Ends 2 if something in the recipe cannot be done.
    """
    recipe, file = read_recipe(given)
    from compress.pipeline.plan import plan

    made = plan(recipe, file, options_of(given), sensitive)
    if given["as_json"]:
        click.echo(json.dumps(made.to_data(), indent=2))
    else:
        from rich.console import Console

        console = Console()
        for part in _parts(made, verbose):
            console.print(part)
    if made.refused:
        ctx.exit(2)


def _parts(made: Plan, verbose: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text.assemble((made.recipe, "bold"), f"  {made.source}, {made.architecture}, {made.parameters:,} parameters")
    for at, step in enumerate(made.steps):
        needs = ", needs calibration data" if step.calibrates else ""
        yield Text(f"\nsteps[{at}] {step.use}: {len(step.rows)} modules{needs}", style="bold")
        if step.rows:
            yield _modules(step, verbose)
    yield Text("\nFiles", style="bold")
    yield _sizes(made)
    yield Text(_facts(made))
    if made.predictions:
        yield Text("\nAround the ratios of the prune steps, predicted", style="bold")
        yield _around(made)
        told = "Shares of the float towers; scaled from this recipe's own, whose latency was measured briefly."
        yield Text(told, style="dim")
    if made.policy:
        yield Text(f"\nPolicy {made.policy}", style="bold")
        yield _tasks(made)
        yield Text()
    yield from _gates(made)
    if made.rungs:
        yield Text("\nRescue, if the gates fail on the development split", style="bold")
        yield _rungs(made)
    if made.sensitivity:
        yield Text("\nDamage of each layer alone, 1 - cosine with the float embedding", style="bold")
        yield _damage(made, verbose)
    for refusal in made.refused:
        hint = f" ({refusal.hint})" if refusal.hint else ""
        yield Text(f"refused  {refusal.where}: {refusal.what}{hint}", style="red")


def _modules(step: StepPlan, verbose: bool) -> Table:
    """One row a module, or one row for all of a tower with the same role, shape and treatment."""
    table = _plain("Modules", "Role", "Shape", "Held as")
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in step.rows:
        held = row.treatment + (f", {row.padding} zeros complete a row" if row.padding else "")
        key = row.tower, row.role, "x".join(map(str, row.shape)), held, row.site if verbose else ""
        groups.setdefault(key, []).append(row.site)
    for (tower, role, shape, held, _), sites in groups.items():
        table.add_row(sites[0] if len(sites) == 1 else f"{tower}: {len(sites)}", role, shape, held)
    return table


def _plain(*columns: str) -> Table:
    """A table of words."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _sizes(made: Plan) -> Table:
    from compress.report import wording
    from compress.report.inspection import plain_table

    table = plain_table("Tower", "Parameters", "Float", "Compressed", "Ratio")
    rows = [(each.tower, each.parameters, each.before, each.after) for each in made.sizes]
    afters = [after for *_, after in rows if after is not None]
    total = sum(afters) if len(afters) == len(rows) else None
    rows.append(("all", made.parameters, sum(row[2] for row in rows), total))
    left = {each.tower: each.parameters_after for each in made.sizes if each.parameters_after != each.parameters}
    for tower, parameters, before, after in rows:
        shown = "cannot be written" if after is None else wording.size(after)
        ratio = wording.number(wording.ratio(after, before))
        count = f"{parameters:,}" + (f" to {left[tower]:,}" if tower in left else "")
        table.add_row(tower, count, wording.size(before), shown, ratio)
    return table


def _around(made: Plan) -> Table:
    """One row for each set of ratios: what is left of every tower."""
    from compress.report import wording
    from compress.report.inspection import plain_table

    towers = list(made.predictions[0].towers)
    table = plain_table("Ratios", *(f"{kind} {what}" for kind in towers for what in ("weights", "FLOPs", "latency")))
    for each in made.predictions:
        cells = []
        for left in each.towers.values():
            cells += [f"{left.parameters:.2f}", f"{left.work:.2f}"]
            cells.append(wording.NOTHING if left.latency is None else f"{left.latency:.2f}")
        table.add_row(", ".join(f"{ratio:g}" for ratio in each.ratios), *cells)
    return table


def _facts(made: Plan) -> str:
    from compress.report import wording

    data = made.calibration
    told = "none" if data is None else ", ".join(f"{key} {value}" for key, value in data.items())
    pruned = ", ".join(f"{each.tower} {100 * each.work:.0f} %" for each in made.sizes if each.work != 1)
    work = f"\nproducts     {pruned} of the multiplications per token stay" if pruned else ""
    memory = f"{wording.size(made.memory)} at the peak so far; a run takes as much, and a child that measures beside it"
    if made.disk is not None:
        memory = f"about {wording.size(made.memory)} at the peak of a run: the weights are streamed, block by block"
        memory += f"\ndisk         about {wording.size(made.disk)} until the artifact is settled"
    return f"\ncalibration  {told}\nmemory       {memory}{work}"


def _tasks(made: Plan) -> Table:
    from compress.report import wording

    table = _plain("Task", "Split", "Items", "Smallest slice of each dimension")
    for task in made.tasks:
        items = "all there are" if task.items is None else wording.count(task.items)
        slices = ", ".join(f"{dimension} {wording.count(count)}" for dimension, count in task.slices.items())
        table.add_row(task.name, task.split, items, slices or wording.NOTHING)
    return table


def _rungs(made: Plan) -> Table:
    table = _plain("Rung", "What it changes")
    for rung in made.rungs:
        table.add_row(rung.name, rung.what)
    return table


def _damage(made: Plan, verbose: bool) -> Table:
    """The sites that move the embedding most, or all of them."""
    from compress.report import wording
    from compress.report.inspection import plain_table

    rows = made.sensitivity.rows if made.sensitivity else ()
    table = plain_table("Layer", "Mean", "1st percentile")
    for row in rows if verbose else rows[:SHOWN]:
        table.add_row(f"{row.tower}:{row.site}", wording.number(row.mean, 6), wording.number(row.p1, 6))
    if len(rows) > SHOWN and not verbose:
        table.add_row(f"and {len(rows) - SHOWN} more: -v", "", "")
    return table


def _gates(made: Plan) -> Iterator[RenderableType]:
    """Gates that bound a drop, with the items they have and those they need; the others by name."""
    from rich.text import Text

    from compress.report import wording
    from compress.report.inspection import plain_table

    bounded = [gate for gate in made.gates if gate.needed is not None]
    others = [f"{gate.metric} ({gate.rule})" for gate in made.gates if gate.needed is None]
    if bounded:
        shares = list(bounded[0].needed or {})
        table = plain_table("Gate", "Margin", "Items", *(f"{100 * float(share):g} %" for share in shares))
        for gate in bounded:
            items = wording.count(gate.declared) + (" a slice" if gate.per_slice else "")
            needed = ["never" if count is None else wording.count(count) for count in (gate.needed or {}).values()]
            table.add_row(gate.metric, wording.points(gate.margin), items, *needed)
        yield table
        told = "Last columns: items with which an equal candidate passes 4 times in 5, if so many of them differ."
        yield Text(told, style="dim")
    if others:
        yield Text(f"Also: {', '.join(others)}")
