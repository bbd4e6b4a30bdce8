"""Key pairs that sign verdicts: PEM files as every tool reads them, named by the digest of their public half."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from compress.core import digest
from compress.core.errors import ConflictError, UsageError

_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm)  # what cryptography raises for a file that is no such key


def generate(out: Path, passphrase: bytes | None = None) -> str:
    """Write a new ed25519 pair, `out` (PKCS #8, mode 0600) and `out`.pub; returns the key id.

    Raises ConflictError where either file is there already, UsageError where none can be written.
    """
    made = Ed25519PrivateKey.generate()
    guard: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        guard = serialization.BestAvailableEncryption(passphrase)
    private = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, guard)
    public = made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = public_path(out)
    _create(out, private, 0o600)
    try:
        _create(beside, public, 0o644)
    except BaseException:
        out.unlink()  # half a pair is of no use, and would be in the way of the next try
        raise
    return key_id(made.public_key())


def public_path(private: Path) -> Path:
    """Where the public key of a pair lies."""
    return private.with_name(f"{private.name}.pub")


def read_private(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """What signs with a private key. Raises UsageError where the file is no ed25519 key that can be opened."""
    content = _read(path)
    locked = b"ENCRYPTED" in content
    if locked and passphrase is None:
        raise UsageError("the key is encrypted", str(path), "set COMPRESS_KEY_PASSPHRASE to its passphrase")
    try:
        key = serialization.load_pem_private_key(content, passphrase if locked else None)
    except _MALFORMED:
        what = "not a private key in PEM, or its passphrase is another" if locked else "not a private key in PEM"
        raise UsageError(what, str(path), "`compress keygen` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("not an ed25519 key", str(path), "`compress keygen` makes one")
    return CryptoSigner(key, SSlibKey.from_crypto(key.public_key(), keyid=key_id(key.public_key())))


def read_public(path: Path) -> SSlibKey:
    """What checks signatures. Raises UsageError where the file is no ed25519 public key."""
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise UsageError("a private key; to check signatures takes only the public one", str(path), "pass KEY.pub")
    try:
        key = serialization.load_pem_public_key(content)
    except _MALFORMED:
        raise UsageError("not a public key in PEM", str(path), "`compress keygen` writes one to KEY.pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("not an ed25519 key", str(path), "`compress keygen` makes one")
    return SSlibKey.from_crypto(key, keyid=key_id(key))


def key_id(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return digest.of_bytes(der)


def named_information(sha256: str) -> str:
    """The URI of what has this hex digest: `ni:///sha-256;...` (RFC 6920)."""
    return "ni:///sha-256;" + urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


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
