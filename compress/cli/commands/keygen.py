"""`compress keygen`: a key pair to sign verdicts with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from compress.cli.signing import PASSPHRASE, passphrase


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--type", "kind", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True,
              help="p256 (ECDSA) can write OpenSSF model-signing bundles as well.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(out: Path, kind: str, as_json: bool) -> None:
    """Write a new key pair: OUT, to be kept secret, and OUT.pub, for all who verify.

    The private key is PKCS #8 in PEM with mode 0600, encrypted with the passphrase in COMPRESS_KEY_PASSPHRASE if
    there is one. Files there already are never overwritten (ends 8).
    """
    from compress.artifact import keys

    secret = passphrase()
    key_id = keys.generate(out, kind, secret)
    told = {
        "private_key": str(out),
        "public_key": str(keys.public_path(out)),
        "key_id": key_id,
        "verifier_id": keys.named_information(key_id),
    }
    if as_json:
        click.echo(json.dumps({"version": 1, **told, "encrypted": secret is not None}, indent=2))
        return
    for name, value in told.items():
        click.echo(f"{name.replace('_', ' '):12} {value}")
    if secret is None:
        click.echo(f"the private key is not encrypted; {PASSPHRASE} in the environment would do it", err=True)
