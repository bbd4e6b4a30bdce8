"""`compress sign`: sign the verdict of an artifact that was made before, or elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from compress.cli.signing import BUNDLE, KEY, RESOURCE, opened


@click.command()
@click.argument("artifact", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--key", required=True, type=KEY, metavar="KEY", help="The private key.")
@RESOURCE
@BUNDLE
@click.option("--output", type=click.Path(path_type=Path), default=Path("artifacts"), show_default=True,
              help="Folder that gets the signed artifact below released/, blocked/ or ungated/.")  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace a released artifact of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, /, artifact: Path, key: Path, **given: Any) -> None:
    """Sign the verdict of ARTIFACT, whichever it is, and settle the signed artifact below --output.

    For keys that are kept away from where artifacts are made. ARTIFACT is checked first, as `compress verify` does,
    and stays as it is unless it lies below --output itself: there the signed one takes its place, with --replace if
    it was released. COMPRESS_KEY_PASSPHRASE opens an encrypted key. Ends as `verify` does: 0 only for what passed.
    """
    from compress.artifact import layout
    from compress.artifact.signing import settle_signed
    from compress.artifact.staging import Store

    signing = opened(key, given["resource"], given["bundle"])
    settled, report = settle_signed(artifact, Store(given["output"]), signing, given["replace"])
    code = layout.EXIT_CODES[report.status]
    if given["as_json"]:
        told = {"path": str(settled), "subject": report.subject, "status": report.status, "key_id": signing.key_id}
        click.echo(json.dumps({"version": 1, **told, "exit_code": code}, indent=2))
    else:
        click.echo(f"{report.status}, signed by key {signing.key_id}")
        click.echo(str(settled))
    ctx.exit(code)
