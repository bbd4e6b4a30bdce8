"""`compress verify`: what a release pipeline calls before it uses an artifact."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from compress.artifact import verify
from compress.core.errors import CompressError, UsageError
from compress.recipe import document


@click.command()
@click.argument("artifact", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Require that the artifact was gated with this policy file.",
)
@click.option("--policy-digest", metavar="HEX", help="Require that its policy has this SHA-256 digest.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(artifact: Path, policy: Path | None, policy_digest: str | None, as_json: bool) -> None:
    """Check that ARTIFACT is whole and passed its gates.

    Ends 0 if it may be used, 3 if a gate failed, 4 if it is undecided or was never gated, 6 if any byte, file or
    verdict is not what the artifact itself or the required policy says.
    """
    report = None
    try:
        pinned = _pin(policy, policy_digest)
        report = verify.check(artifact, pinned)
        if not as_json:
            _show(report, pinned)
        report.require_passed(str(artifact))
        if as_json:
            _print_json(report, None)
    except CompressError as error:
        if as_json:
            _print_json(report, error)
        raise


def _pin(policy: Path | None, policy_digest: str | None) -> str | None:
    """The one policy digest that the options require."""
    if policy_digest is not None and not re.fullmatch("[0-9a-f]{64}", policy_digest):
        raise UsageError("not 64 lower-case hex digits", "--policy-digest")
    if policy is None:
        return policy_digest
    digest = document.read(policy).digest
    if policy_digest not in (None, digest):
        raise UsageError(f"{policy} has digest {digest}, --policy-digest says {policy_digest}", "--policy")
    return digest


def _show(report: verify.Report, pinned: str | None) -> None:
    click.echo(f"integrity  ok  {report.files} files, {report.size:,} bytes, none missing, changed or added")
    click.echo(f"subject    ok  {report.subject}, which is what was gated")
    if report.policy is None:
        click.echo("policy     none")
    else:
        state = "the required one" if pinned else "any accepted; --policy or --policy-digest requires one"
        click.echo(f"policy     ok  {report.policy.name} {report.policy.digest} ({state})")
    click.echo(f"verdict    {report.status}  {len(report.findings)} findings")


def _print_json(report: verify.Report | None, error: CompressError | None) -> None:
    made: dict[str, Any] = {"version": 1, "status": "error", **(asdict(report) if report else {})}
    made["exit_code"] = error.exit_code if error else 0
    made["error"] = {"what": error.what, "where": error.where, "hint": error.hint} if error else None
    click.echo(json.dumps(made, indent=2))
