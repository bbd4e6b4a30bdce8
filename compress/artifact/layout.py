"""Where everything lies in an artifact: file names, what is evidence rather than payload, where each verdict leads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

MANIFEST = "compress/manifest.json"

RECIPE = "compress/recipe.resolved.yaml"
POLICY = "compress/policy.yaml"
RUNTIME = "compress/runtime.json"
STRUCTURE = "compress/structure.json"
PROFILE_SHAPES = "compress/profile_shapes.json"

CARD = "README.md"
GATE_REPORT = "compress/gate_report.json"
WAIVERS = "compress/waivers.yaml"
JUNIT = "compress/gate_report.junit.xml"
HTML_REPORT = "compress/report.html"
SAMPLES = "compress/samples.parquet"
ENVIRONMENT = "compress/env.json"
ATTESTATIONS = "compress/attestations.intoto.jsonl"
BUNDLE = "compress/model.sig"

EVIDENCE = frozenset({CARD, GATE_REPORT, WAIVERS, JUNIT, HTML_REPORT, SAMPLES, ENVIRONMENT, ATTESTATIONS, BUNDLE})
"""What was measured and decided about the payload. Differs from run to run (times), so the subject leaves it out."""

Status = Literal["passed", "failed", "inconclusive", "waived", "ungated"]

PLACES: Mapping[Status, str] = {
    "passed": "released",
    "failed": "blocked",
    "inconclusive": "blocked",
    "waived": "waived",
    "ungated": "ungated",
}
"""The folder below the output root that a verdict leads to."""

EXIT_CODES: Mapping[Status, int] = {"passed": 0, "failed": 3, "inconclusive": 4, "waived": 3, "ungated": 4}
"""The exit code that a gate report with this status states. Only 0 releases."""

_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


def is_name(text: str) -> bool:
    """Whether text can name an artifact: one plain path component that is neither hidden nor leads elsewhere."""
    return _NAME.fullmatch(text) is not None


def is_uri(text: str) -> bool:
    """Whether text is an absolute URI in printable ASCII."""
    return _URI.fullmatch(text) is not None


def resource(name: str) -> str:
    """The URI that an artifact goes by where nobody chose another: its name as a package URL."""
    return f"pkg:generic/{name}"


def path_problem(path: str) -> str:
    """What is wrong with a path inside an artifact ('' if nothing): it must be POSIX, relative and stay inside."""
    if not path.isprintable():  # control characters, NUL, bytes that are no UTF-8
        return "unprintable characters in the path"
    if "\\" in path:
        return "backslash in the path"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "absolute path, or one with an empty, '.' or '..' part"
    return ""
