"""Key pairs that sign verdicts: PEM files as every tool reads them, named by the digest of their public half."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from compress.core import digest
from compress.core.errors import ConflictError, UsageError

KINDS: Final = ("ed25519", "p256")
"""Ed25519 (RFC 8032), and ECDSA on NIST P-256 with SHA-256 for who needs model-signing bundles."""

PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey

_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm)  # what cryptography raises for a file that is no such key
_OTHER = "neither an ed25519 key nor one on the curve P-256"
_HINT = "`compress keygen` makes one"


def generate(out: Path, kind: str = KINDS[0], passphrase: bytes | None = None) -> str:
    """Write a new pair of one of the KINDS, `out` (PKCS #8, mode 0600) and `out`.pub; returns the key id.

    Raises ConflictError where either file is there already, UsageError where none can be written.
    """
    made = ec.generate_private_key(ec.SECP256R1()) if kind == "p256" else Ed25519PrivateKey.generate()
    guard: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        guard = serialization.BestAvailableEncryption(passphrase)
    _create(out, made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, guard), 0o600)
    try:
        _create(public_path(out), _public_bytes(made.public_key(), serialization.Encoding.PEM), 0o644)
    except BaseException:
        out.unlink()  # half a pair is of no use, and would be in the way of the next try
        raise
    return key_id(made.public_key())


def public_path(private: Path) -> Path:
    """Where the public key of a pair lies."""
    return private.with_name(f"{private.name}.pub")


def read_private(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """What signs with a private key. Raises UsageError where the file is no key of a known kind that can be opened."""
    content = _read(path)
    locked = b"ENCRYPTED" in content
    if locked and passphrase is None:
        raise UsageError("the key is encrypted", str(path), "set COMPRESS_KEY_PASSPHRASE to its passphrase")
    try:
        key = serialization.load_pem_private_key(content, passphrase if locked else None)
    except _MALFORMED:
        what = "not a private key in PEM, or its passphrase is another" if locked else "not a private key in PEM"
        raise UsageError(what, str(path), _HINT) from None
    return CryptoSigner(key, _named(key.public_key(), path))


def read_public(path: Path) -> SSlibKey:
    """What checks signatures. Raises UsageError where the file is no public key of a known kind."""
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise UsageError("a private key; to check signatures takes only the public one", str(path), "pass KEY.pub")
    try:
        key = serialization.load_pem_public_key(content)
    except _MALFORMED:
        raise UsageError("not a public key in PEM", str(path), "`compress keygen` writes one to KEY.pub") from None
    return _named(key, path)


def key_id(key: PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    return digest.of_bytes(_public_bytes(key, serialization.Encoding.DER))


def named_information(sha256: str) -> str:
    """The URI of what has this hex digest: `ni:///sha-256;...` (RFC 6920)."""
    return "ni:///sha-256;" + urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


def _named(key: Any, path: Path) -> SSlibKey:
    known = isinstance(key, Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    )
    if not known:
        raise UsageError(_OTHER, str(path), _HINT)
    return SSlibKey.from_crypto(key, keyid=key_id(key))


def _public_bytes(key: PublicKey, encoding: serialization.Encoding) -> bytes:
    return key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConflictError("is there already; keys are never overwritten", str(path), "choose another name") from None
    except OSError as error:
        raise UsageError(error.strerror or str(error), str(path)) from error
    with os.fdopen(opened, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(error.strerror or str(error), str(path)) from error
