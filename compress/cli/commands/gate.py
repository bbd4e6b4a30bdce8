"""`compress gate`: judge anything that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from compress.cli.running import WAIVERS, model_options, options_of

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("path", required=False)
@click.option(
    "--policy", required=True, metavar="NAME", help="What must hold: a policy file, or the name of a bundled one."
)
@click.option("--reference", required=True, metavar="MODEL", help="What PATH is compared with, item by item.")
@click.option("--vision", type=_FILE, metavar="FILE", help="ONNX file of the vision tower, instead of PATH.")
@click.option("--text", type=_FILE, metavar="FILE", help="ONNX file of the text tower, instead of PATH.")
@click.option("--like", metavar="MODEL", help="Whose preprocessing and input names ONNX files take; the reference's.")
@click.option("--preprocess", type=_FILE, metavar="FILE", help="How inputs of ONNX files are made, as in a recipe.")
@click.option("--calibration", metavar="none|FILE", help="What you state it was calibrated on: none, or a file.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder that gets gate_report.json, gate_report.junit.xml and summary.md.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of rendered items."
)
@WAIVERS
@click.option("--verbose", "-v", is_flag=True, help="List every passed slice.")
@model_options
@click.pass_context
def command(ctx: click.Context, /, path: str | None, verbose: bool, **given: Any) -> None:
    """Measure PATH against a reference and decide by a policy; nothing is published.

    PATH is an artifact, pocket-clip, a model folder, a hub id, a folder of two ONNX files or one ONNX file (a vision
    tower, whose text tower is the reference's). Of what is no artifact and not the reference itself nobody knows what
    it was calibrated or trained on: state it with --calibration. Gates on what only the maker of an artifact knows
    (census, export) stay inconclusive. Ends 0 if every gate passed, 3 if one failed or is waived, 4 if one could not
    be decided.
    """
    from compress.gates.policy import load_policy
    from compress.pipeline.candidate import Asked, candidate
    from compress.pipeline.judgement import judge
    from compress.pipeline.runnable import reference

    policy = load_policy(given["policy"])
    options = options_of(given)
    files = {kind: given[kind] for kind in ("vision", "text") if given[kind] is not None}
    asked = Asked(path, files, given["like"], given["preprocess"], given["calibration"], given["allow_pickle"])
    original = reference(given["reference"], options, given["allow_pickle"])
    with candidate(asked, original, options) as found:
        judged = judge(policy, original, found, given["seed"], options)
    if given["report"] is not None:
        from compress.report.gate_files import write

        write(given["report"], judged.verdict, judged.report)
    if given["as_json"]:
        click.echo(json.dumps(judged.report, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from compress.report.contents import Contents
        from compress.report.document import Document
        from compress.report.summary import Summary

        Console().print(Summary(Document.model_validate(judged.report), verbose), Contents(judged.report))
    ctx.exit(judged.verdict.exit_code)
