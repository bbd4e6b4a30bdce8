"""`compress verify`: what a release pipeline calls before it uses an artifact."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.artifact import layout, verify
from compress.artifact.report import Report, waiver_line
from compress.cli.signing import KEY, check_resource
from compress.core.errors import CompressError, UsageError
from compress.gates import policy_file
from compress.recipe import waivers

if TYPE_CHECKING:
    from compress.artifact.attestation import Signed


@click.command()
@click.argument("artifact", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Require that the artifact was gated with this policy file.",
)
@click.option("--policy-digest", metavar="HEX", help="Require that its policy has this SHA-256 digest.")
@click.option(
    "--allow-waived",
    "allowed",
    metavar="FILE|HEX",
    help="Accept what these waivers waive, until they expire: their file, or its digest as `verify` prints it.",
)
@click.option("--public-key", type=KEY, metavar="KEY.pub", help="Require that this key signed the verdict.")
@click.option(
    "--resource-uri",
    "resource",
    metavar="URI",
    help="Require that it was signed to be found here; by default at pkg:generic/NAME.",
)
@click.option("--bundle", is_flag=True, help="Require an OpenSSF model-signing bundle by this key as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(artifact: Path, as_json: bool, **required: Any) -> None:
    """Check that ARTIFACT is whole and passed its gates and, with --public-key, who says so.

    Ends 0 if it may be used, 3 if a gate failed or is waived, 4 if it is undecided or was never gated, 6 if any byte,
    file, verdict or signature is not what the artifact itself, the required policy or the key says.
    """
    report = signed = None
    try:
        pinned = _pin(required["policy"], required["policy_digest"])
        allowed = _allowed(required["allowed"])
        check_signature = _signature_check(required["public_key"], required["resource"], required["bundle"])
        report = verify.check(artifact, pinned)
        if not as_json:
            _show(report, pinned)
        signed = check_signature(artifact, report)
        if not as_json:
            _show_signature(artifact, signed)
            _show_verdict(report)
        if signed is not None:
            signed.require(str(artifact))
        report.require_passed(str(artifact), allowed)
        if as_json:
            _print_json(report, _signature(artifact, signed), None)
    except CompressError as error:
        if as_json:
            _print_json(report, _signature(artifact, signed), error)
        raise


def _pin(policy: Path | None, policy_digest: str | None) -> str | None:
    """The one policy digest that the options require."""
    if policy_digest is not None and not re.fullmatch("[0-9a-f]{64}", policy_digest):
        raise UsageError("not 64 lower-case hex digits", "--policy-digest")
    if policy is None:
        return policy_digest
    digest = policy_file.read(policy).require_merged().digest
    if policy_digest not in (None, digest):
        raise UsageError(f"{policy} has digest {digest}, --policy-digest says {policy_digest}", "--policy")
    return digest


def _allowed(named: str | None) -> str | None:
    """The digest of the waivers that the options allow."""
    if named is None or re.fullmatch("[0-9a-f]{64}", named):
        return named
    if not Path(named).is_file():
        raise UsageError("neither a file nor 64 lower-case hex digits", "--allow-waived")
    return waivers.read(Path(named)).digest


def _signature_check(
    public_key: Path | None, resource: str | None, with_bundle: bool
) -> Callable[[Path, Report], Signed | None]:
    """What checks the signature, its key already read; without a key it checks nothing."""
    check_resource(resource)
    if public_key is None:
        for name, value in (("--resource-uri", resource), ("--bundle", with_bundle)):
            if value:
                raise UsageError("there is nothing to check it with", name, "pass --public-key with it")
        return lambda *_: None
    from compress.artifact import attestation, bundle, keys

    key = keys.read_public(public_key)

    def check(artifact: Path, report: Report) -> Signed:
        signed = attestation.check(artifact, report, key, resource)
        if signed.mismatched or not with_bundle:
            return signed
        return replace(signed, checks=(*signed.checks, bundle.check(artifact, public_key)))

    return check


def _show(report: Report, pinned: str | None) -> None:
    click.echo(f"integrity  ok  {report.files} files, {report.size:,} bytes, none missing, changed or added")
    click.echo(f"subject    ok  {report.subject}, which is what was gated")
    if report.policy is None:
        click.echo("policy     none")
    else:
        state = "the required one" if pinned else "any accepted; --policy or --policy-digest requires one"
        click.echo(f"policy     ok  {report.policy.name} {report.policy.digest} ({state})")


def _show_verdict(report: Report) -> None:
    click.echo(f"verdict    {report.status}  {len(report.findings)} findings")
    if report.waived:
        click.echo(f"WAIVED, NOT PASSED: {len(report.waived)} of them, by waivers {report.waivers}")
        for finding in report.waived:
            click.echo(waiver_line(finding))


def _show_signature(artifact: Path, signed: Signed | None) -> None:
    data = _signature(artifact, signed)
    if signed is None:
        hint = "; --public-key does it" if data["status"] == "not checked" else ""
        click.echo(f"signature  {data['status']}{hint}")
        return
    click.echo(f"signature  {data['status']}  {signed.time}")
    for each in signed.checks:
        click.echo(f"  {each.name:18}  {each.status}  {each.detail}")


def _signature(artifact: Path, signed: Signed | None) -> dict[str, Any]:
    """What there is to say about signatures, as JSON-like data."""
    if signed is None:
        return {"status": "not checked" if (artifact / layout.ATTESTATIONS).is_file() else "none"}
    return {"status": "mismatch" if signed.mismatched else "ok", **asdict(signed)}


def _print_json(report: Report | None, signature: dict[str, Any], error: CompressError | None) -> None:
    made: dict[str, Any] = {"version": 1, "status": "error", **(asdict(report) if report else {})}
    made["signature"] = signature
    made["exit_code"] = error.exit_code if error else 0
    made["error"] = {"what": error.what, "where": error.where, "hint": error.hint} if error else None
    click.echo(json.dumps(made, indent=2))
