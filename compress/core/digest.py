"""SHA-256 of files and of data in canonical JSON (RFC 8785)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785


def of_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(opened)


def _slow(opened: Any) -> str:
    made = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while piece := opened.read(1 << 20):
        made.update(piece)
    return made.hexdigest()


def canonical(data: Any) -> bytes:
    """JSON bytes that depend on the data alone: sorted keys, no white space, one way to write a number."""
    return rfc8785.dumps(data)


def of_data(data: Any) -> str:
    """Hex SHA-256 of JSON-like data."""
    return of_bytes(canonical(data))
