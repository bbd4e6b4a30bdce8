"""The templates beside this file. In HTML and in Markdown alike, what they put in is escaped unless marked safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from compress.report.summary import escaped


def html(name: str, **values: Any) -> str:
    """Fill in an HTML template."""
    return _fill(jinja2.Environment(loader=_LOADER, autoescape=True, **_OPTIONS), name, values)


def markdown(name: str, **values: Any) -> str:
    """Fill in a Markdown template."""
    # every value passes through `finalize`, which escapes for Markdown; HTML escapes on top would be shown as text
    return _fill(jinja2.Environment(loader=_LOADER, finalize=_safe, **_OPTIONS), name, values)  # noqa: S701


def _fill(environment: jinja2.Environment, name: str, values: dict[str, Any]) -> str:
    return environment.get_template(name).render(values)


def _safe(value: Any) -> Any:
    return value if isinstance(value, Markup) else escaped(str(value))


_LOADER = jinja2.FileSystemLoader(Path(__file__).parent)
_OPTIONS: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    "undefined": jinja2.StrictUndefined,
}
