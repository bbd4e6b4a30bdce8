"""Values without parts: what unquoted YAML text means (1.2 core schema), and how an error message shows a value.

`yes`, `1_000` and `2024-01-31` are text, `1e-3` is a number.
"""

from __future__ import annotations

import math
import re
from typing import Any

_MAX_INTEGER = 2**53 - 1  # the largest that canonical JSON can hold

_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar. Raises ValueError with what is wrong for a number that is not usable."""
    if text in _CONSTANTS or (text.lower() in _CONSTANTS and text in (text.title(), text.upper())):
        return _CONSTANTS[text.lower()]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("NaN and infinities are not allowed")
    if _INTEGER.fullmatch(text):
        number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 24 else _MAX_INTEGER + 1
        if abs(number) > _MAX_INTEGER:
            raise ValueError("is too large a number (quote it if it is text)")
        return number
    if _FLOAT.fullmatch(text):
        if not math.isfinite(float(text)):
            raise ValueError("is too large a number (quote it if it is text)")
        return float(text)
    return text


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line, without control characters."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return repr(value)
