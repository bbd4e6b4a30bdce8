"""JSON from an artifact, read as data nobody vouches for: bounded, no duplicate keys, no NaN, exact types."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.core.errors import IntegrityError

LARGEST = 32 << 20
"""Bytes; the largest document of an artifact that is read into memory."""


def read_bytes(path: Path) -> bytes:
    """Content of a regular file of bounded size. Raises IntegrityError where there is none."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError("not a regular file", str(path))
        if found.st_size > LARGEST:
            raise IntegrityError(f"{found.st_size} bytes; at most {LARGEST} are read", str(path))
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(error.strerror or str(error), str(path)) from error


def parse(content: bytes, where: str) -> Any:
    """Data of a JSON text in UTF-8. Raises IntegrityError on duplicate keys, NaN, infinity and anything malformed."""
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float
        )
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"malformed JSON: {error}", where) from error


def fields(data: Any, kinds: Mapping[str, type], where: str, *, more: bool = False) -> dict[str, Any]:
    """`data` as an object with these keys of exactly these types, and no others unless `more`."""
    if type(data) is not dict:
        raise IntegrityError("not a JSON object", where)
    for key, kind in kinds.items():
        if type(data.get(key)) is not kind:  # exact: true is no integer
            raise IntegrityError(f"{key!r} is missing or not of type {kind.__name__}", where)
    unknown = sorted(data.keys() - kinds.keys())
    if unknown and not more:
        raise IntegrityError(f"unknown keys {unknown}", where)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    return number
