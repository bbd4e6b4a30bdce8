"""Signing an artifact: in the run that makes it, or later by whoever keeps the key, with the same code."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from compress.artifact import attestation, bundle, layout, manifest, verify
from compress.artifact.report import Report
from compress.artifact.staging import Staging, Store
from compress.core.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs, and the URI under which the artifact will be found (by default one made from its name).

    `bundler` (`bundle.opened`) writes a model-signing bundle as well.
    """

    signer: CryptoSigner
    resource: str | None = None
    bundler: Any = None

    @property
    def key_id(self) -> str:
        """Id of the key that signs."""
        return str(self.signer.public_key.keyid)


def sign(staging: Staging, signing: Signing) -> None:
    """Write the attestations of a staged folder that is otherwise complete, whatever its verdict."""
    if signing.bundler is not None:
        staging.write(layout.BUNDLE, bundle.write(staging.folder, signing.bundler))
    files = staging.scan()
    report = verify.judge(staging.folder, files)
    staging.write(layout.ATTESTATIONS, attestation.attest(report, files, signing.signer, signing.resource))


def settle_signed(artifact: Path, store: Store, signing: Signing, replace: bool = False) -> tuple[Path, Report]:
    """Settle a signed copy of an artifact that was made before; returns where, and its report.

    Raises IntegrityError where it is not whole, ConflictError as `Staging.settle` does.
    """
    report = verify.check(artifact)
    listed = manifest.read(artifact)
    wanted = tuple(entry for entry in listed.entries if entry.path not in (layout.ATTESTATIONS, layout.BUNDLE))
    with store.stage(report.name) as staging:
        for entry in wanted:
            shutil.copyfile(artifact / entry.path, staging.path(entry.path))
        if staging.scan().entries != wanted:
            raise IntegrityError("changed while it was copied", str(artifact))
        sign(staging, signing)
        return staging.settle(report.status, replace), report
