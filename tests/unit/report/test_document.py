import json
import math
from pathlib import Path

import pytest
import report_sample
from pydantic import ValidationError

from compress.core.errors import IntegrityError, UsageError
from compress.report import document
from compress.report.document import Document


def write(folder: Path, text: str) -> Path:
    (folder / "compress").mkdir(parents=True)
    (folder / "compress" / "gate_report.json").write_text(text)
    return folder


def test_reads_what_an_artifact_says(tmp_path):
    report = document.read(write(tmp_path / "a", json.dumps(report_sample.blocked())))
    assert report.status == "failed"
    assert report.findings[1].bound == 0.1537
    assert report.scores[1].place == "size=6-8"
    assert report.score("reading.accuracy", "size=6-8") is report.scores[1]
    assert report.score("reading.accuracy", None) is report.scores[3]


@pytest.mark.parametrize("missing", ["", "onnx/model.onnx"])
def test_no_artifact_is_a_usage_error_with_a_hint(tmp_path, missing):
    with pytest.raises(UsageError) as raised:
        document.read(tmp_path / missing)
    assert "compress/gate_report.json" in raised.value.hint


def test_a_near_name_is_suggested(tmp_path):
    write(tmp_path / "int4_clip", "{}")
    with pytest.raises(UsageError) as raised:
        document.read(tmp_path / "int4_clop")
    assert "did you mean int4_clip" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"version": 1, "version": 1}',
        json.dumps(report_sample.bare() | {"version": 2}),
        json.dumps(report_sample.bare() | {"status": "fine"}),
        json.dumps({key: value for key, value in report_sample.bare().items() if key != "findings"}),
    ],
    ids=["empty", "list", "deep", "duplicate key", "version", "status", "no findings"],
)
def test_what_is_no_gate_report_is_an_integrity_error(tmp_path, text):
    with pytest.raises(IntegrityError):
        document.read(write(tmp_path / "a", text))


@pytest.mark.parametrize("status", ["failed", "inconclusive", None])
def test_passed_cannot_be_said_over_findings_that_say_otherwise(status):
    data = report_sample.passed()
    data["findings"] = [data["findings"][0] | {"status": status}] if status else []
    with pytest.raises(ValidationError, match="passed"):
        Document.model_validate(data)


def test_nulls_and_missing_keys_read_the_same():
    nulls = dict.fromkeys(
        ("exit_code", "created", "model", "policy", "recipe", "steps", "scores", "sizes", "latency", "environment")
    )
    assert Document.model_validate(report_sample.bare() | nulls) == Document.model_validate(report_sample.bare())


def test_what_is_not_finite_or_printable_does_not_get_in():
    data = report_sample.blocked() | {"name": "a\x1b[31m\nb\x00\u202e"}
    data["findings"][1]["value"] = math.nan
    report = Document.model_validate(data)
    assert report.name == "a [31m b  "
    assert report.findings[1].value is None
