"""The files that a pipeline keeps of `compress gate`: report, JUnit and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.gates.junit import junit
from compress.gates.verdict import Verdict
from compress.report.contents import lines
from compress.report.document import Document
from compress.report.summary import brief, escaped


def write(folder: Path, verdict: Verdict, report: Mapping[str, Any]) -> None:
    """Write gate_report.json, gate_report.junit.xml and summary.md into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate_report.json").write_text(json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    (folder / "gate_report.junit.xml").write_text(junit(verdict), "utf-8")
    told = "\n".join(f"- {escaped(line)}" for line in lines(report))
    (folder / "summary.md").write_text(f"{brief(Document.model_validate(report))}\n{told}\n", "utf-8")
