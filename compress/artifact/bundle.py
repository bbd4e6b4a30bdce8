"""An OpenSSF model-signing bundle, which other tools verify, and whether it lists what our manifest lists.

model-signing 1.1 (github.com/sigstore/model-transparency, docs/model_signing_format.md), of the extra [signing].
"""

from __future__ import annotations

import base64
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final

from securesystemslib.signer import CryptoSigner

from compress.artifact import layout, manifest, strict_json
from compress.artifact.attestation import Check
from compress.core.errors import EnvironmentFailure, IntegrityError, UsageError

_LEFT_OUT: Final = frozenset({layout.BUNDLE, layout.ATTESTATIONS, layout.MANIFEST})
"""What a bundle cannot cover: itself, and the two files that are written after it and name its digest."""

_PREDICATE: Final = "https://model_signing/signature/v1.0"


def opened(key: Path, signer: CryptoSigner, passphrase: bytes | None = None) -> Any:
    """What writes bundles with the private key that `signer` was read from.

    Raises EnvironmentFailure where the extra is not installed, UsageError for a key that is not on the curve P-256.
    """
    library = _library()
    if signer.public_key.keytype != "ecdsa":
        hint = "make one with `compress keygen --type p256`; it signs the attestations as well"
        raise UsageError("model-signing knows no ed25519, its bundles take a key on the curve P-256", str(key), hint)
    made = library.signing.Config().use_elliptic_key_signer(private_key=key, password=passphrase)
    return made.set_hashing_config(_hashing(library))


def write(folder: Path, signer: Any) -> bytes:
    """The text of the bundle for a folder that holds everything but what a bundle leaves out."""
    with TemporaryDirectory() as temporary:
        out = Path(temporary, "model.sig")
        signer.sign(folder, out)
        return out.read_bytes()


def check(folder: Path, key: Path) -> Check:
    """Verify the bundle of an artifact with the library, and hold the files it lists against our manifest.

    Raises EnvironmentFailure without the extra, IntegrityError where there is no bundle or it is malformed.
    """
    library = _library()
    files = manifest.read(folder)
    where = str(folder / layout.BUNDLE)
    if layout.BUNDLE not in files.paths:
        raise IntegrityError("there is none", where, "`--bundle` writes one when an artifact is signed")
    listed = _listed(strict_json.read_bytes(folder / layout.BUNDLE), where)
    expected = {entry.path: entry.sha256 for entry in files.entries if entry.path not in _LEFT_OUT}
    wrong = sorted(path for path in listed.keys() | expected.keys() if listed.get(path) != expected.get(path))
    if wrong:
        return Check("bundle", "mismatch", f"does not list what the manifest lists: {', '.join(map(ascii, wrong))}")
    verifier = library.verifying.Config().set_hashing_config(_hashing(library))
    try:
        with redirect_stdout(sys.stderr):  # it prints warnings there, where our result goes
            verifier.use_elliptic_key_verifier(public_key=key).verify(folder, folder / layout.BUNDLE)
    except Exception as error:  # it raises whatever comes up, and nothing that comes up is a pass
        return Check("bundle", "mismatch", f"model-signing refuses it: {type(error).__name__}: {str(error)!a}")
    return Check("bundle", "ok", f"{len(listed)} files, the same as in {layout.MANIFEST}")


def _library() -> ModuleType:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        hint = "pip install 'compress-encoders[signing]'"
        raise EnvironmentFailure(
            f"model-signing bundles need the extra [signing]: {error}", "--bundle", hint
        ) from error
    library: ModuleType = model_signing
    return library


def _hashing(library: ModuleType) -> Any:
    """Every file, those that begin with .git as well."""
    return library.hashing.Config().set_ignored_paths(paths=sorted(_LEFT_OUT), ignore_git_paths=False)


def _listed(content: bytes, where: str) -> dict[str, str]:
    """Path -> SHA-256 of every file in a bundle, read strictly and not verified."""
    data = strict_json.fields(strict_json.parse(content, where), {"dsseEnvelope": dict}, where, more=True)
    payload = strict_json.fields(data["dsseEnvelope"], {"payload": str}, where, more=True)["payload"]
    try:
        statement = strict_json.parse(base64.b64decode(payload, validate=True), where)
    except ValueError as error:
        raise IntegrityError(f"malformed Base64: {error}", where) from error
    strict_json.fields(statement, {"predicateType": str, "predicate": dict}, where, more=True)
    if statement["predicateType"] != _PREDICATE:
        raise IntegrityError(f"predicateType is {statement['predicateType']!a}, not {_PREDICATE}", where)
    resources = strict_json.fields(statement["predicate"], {"resources": list}, where, more=True)["resources"]
    kinds = {"name": str, "algorithm": str, "digest": str}
    found = {each["name"]: each for each in (strict_json.fields(resource, kinds, where) for resource in resources)}
    if len(found) != len(resources) or any(each["algorithm"] != "sha256" for each in resources):
        raise IntegrityError("lists a file twice, or with a digest that is no SHA-256", where)
    return {name: each["digest"] for name, each in found.items()}
