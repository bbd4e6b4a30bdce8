"""JSON-like data as YAML text that reads back as the same data, whichever reader it is."""

from __future__ import annotations

import io
import re
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from compress.recipe import scalars

_PLAIN: Final = re.compile(r"(?!(?:y|n|yes|no|on|off)$)[a-z_][a-z0-9_./-]*", re.IGNORECASE)
"""A plain word; YAML 1.1 has more booleans."""


def dump(data: Any) -> str:
    """The text; entries keep their order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.width = 1 << 20
    stream = io.StringIO()
    yaml.dump(_quoted(data), stream)
    return stream.getvalue()


def _quoted(data: Any) -> Any:
    """Data with quotes around every text that is more than a plain word, so that every reader takes it for text."""
    if isinstance(data, dict):
        return {_quoted(key): _quoted(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_quoted(value) for value in data]
    if isinstance(data, str) and not (_PLAIN.fullmatch(data) and isinstance(scalars.read(data), str)):
        return DoubleQuotedScalarString(data)
    return data
