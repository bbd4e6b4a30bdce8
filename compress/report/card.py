"""The model card: README.md with Hugging Face front matter, in which nothing from outside can become markup."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from markupsafe import Markup

from compress.report import page, rows, summary, templates, wording
from compress.report.document import Document, Scored

_TASKS: Final = {"CLIPModel": "zero-shot-image-classification"}
"""Architecture -> the Hub's name for what it is used for."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
_LOST: Final = 5  # the largest drops that are named


def render(report: Document) -> str:
    """The whole card. The same document gives the same bytes."""
    return templates.markdown(
        "card.md.jinja",
        report=report,
        front=Markup(_front_matter(report)),  # noqa: S704 - its values are JSON
        load=Markup(_loading(report)),  # noqa: S704 - its value is JSON
        gates=Markup(summary.markdown(report)),  # noqa: S704 - escaped cell by cell
        title=summary.TITLES[report.status],
        sentence=rows.sentence(report),
        lost=lost(report),
        total=page.total(report),
        w=wording,
    )


def lost(report: Document) -> tuple[Scored, ...]:
    """The scores that dropped most, largest first; only real drops."""
    dropped = [each for each in report.scores if each.drop and (each.drop.value or 0) > 0]
    return tuple(sorted(dropped, key=lambda each: -(each.drop.value or 0) if each.drop else 0.0)[:_LOST])


def _front_matter(report: Document) -> str:
    """YAML whose values are JSON strings, so that no name can end them. A base model has to be an id on the Hub."""
    base = report.model.source if _HUB_ID.fullmatch(report.model.source or "") else None
    library = "transformers" if _in_torch(report) else "onnx"
    quantized = any(step.use.startswith("quantize.") for step in report.steps)
    data: dict[str, Any] = {
        "license": report.model.license,
        "library_name": library,
        "pipeline_tag": _TASKS.get(report.model.architecture or ""),
        "base_model": base,
        "base_model_relation": "quantized" if base and quantized else None,
        "tags": [
            "compress",
            *(["onnx"] if library == "onnx" else []),
            *dict.fromkeys(step.use for step in report.steps),
        ],
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in data.items() if value is not None)


def _loading(report: Document) -> str:
    """Two lines of Python that open the first model file, as long as one is listed."""
    if not report.sizes:
        return ""
    if _in_torch(report):
        return "from transformers import AutoModel\nmodel = AutoModel.from_pretrained(PATH)"
    file = report.sizes[0].file
    return f"import onnxruntime\ntower = onnxruntime.InferenceSession({json.dumps(file)})"


def _in_torch(report: Document) -> bool:
    """Whether torch runs the towers: their files are safetensors."""
    return bool(report.sizes) and report.sizes[0].file.endswith(".safetensors")
