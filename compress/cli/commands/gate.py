"""`compress gate`: judge anything that runs."""

from __future__ import annotations

import json
from typing import Any

import click

from compress.cli.running import WAIVERS, model_options, options_of


@click.command()
@click.argument("path")
@click.option(
    "--policy", required=True, metavar="NAME", help="What must hold: a policy file, or the name of a bundled one."
)
@click.option("--reference", required=True, metavar="MODEL", help="What PATH is compared with, item by item.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of rendered items."
)
@WAIVERS
@click.option("--verbose", "-v", is_flag=True, help="List every passed slice.")
@model_options
@click.pass_context
def command(ctx: click.Context, /, path: str, verbose: bool, **given: Any) -> None:
    """Measure PATH against a reference and decide by a policy; nothing is published.

    PATH and the reference are artifacts, pocket-clip, model folders or hub ids. Gates on what only the maker of an
    artifact knows (census, export) stay inconclusive. Ends 0 if every gate passed, 3 if one failed or is
    waived, 4 if one could not be decided.
    """
    from compress.gates.policy import load_policy
    from compress.pipeline.judgement import judge
    from compress.pipeline.runnable import reference, runnable

    policy = load_policy(given["policy"])
    options = options_of(given)
    original = reference(given["reference"], options, given["allow_pickle"])
    candidate = runnable(path, options, given["allow_pickle"])
    report = judge(policy, original, candidate, given["seed"], options)
    if given["as_json"]:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from compress.report.document import Document
        from compress.report.summary import Summary

        Console().print(Summary(Document.model_validate(report), verbose))
    ctx.exit(int(report["exit_code"]))
