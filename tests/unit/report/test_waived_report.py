"""A waived verdict in every view: why and until when, and nowhere as one that holds."""

import io
import json

import pytest
import report_sample as sample
from rich.console import Console

from compress.core.errors import IntegrityError
from compress.report import card, page, rows, summary
from compress.report.comparison import compare
from compress.report.document import Document, read
from compress.report.side_by_side import SideBySide

UNTIL = "waived until 2031-05-31 by Ada: the scanner is replaced"


def waived(**changes):
    return Document.model_validate(sample.waived() | changes)


def terminal(shown):
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(shown)
    return console.file.getvalue()


def views(report):
    return {
        "terminal": terminal(summary.Summary(report)),
        "markdown": summary.brief(report),
        "page": page.render(report),
        "card": card.render(report),
    }


@pytest.mark.parametrize("view", ["terminal", "markdown", "page", "card"])
def test_every_view_says_why_until_when_and_what_it_was(view):
    text = views(waived())[view]
    assert "WAIVED, NOT PASSED" in text
    assert f"{UNTIL} (it failed: drop 14.1 pt)" in text.replace("\\", "")
    assert f"{UNTIL} (it could not be decided: drop 1.2 pt" in text.replace("\\", "")
    assert "unused waiver: size.ratio at_most, all items (until 2031-01-01)" in text.replace("\\", "")
    assert "checks of policy clip_release hold" not in text
    assert "14.10 pt" in text or view == "terminal"


def test_the_sentence_names_the_worst():
    told = rows.sentence(waived())
    assert told.startswith("Of 4 checks of policy clip_release, 2 waived, which is not passed: the worst is reading")
    assert "on size=6-8" in told


def test_what_is_waived_stands_behind_what_blocks_and_before_what_passed():
    made = sample.waived()
    made["findings"][2] |= {"status": "inconclusive", "waiver": None}
    made["findings"][3] |= {"status": "failed", "value": 0.3}
    report = Document.model_validate(made | {"status": "failed"})
    assert [each.status for each in rows.in_order(report)] == ["failed", "inconclusive", "waived", "passed"]
    told = rows.sentence(report)
    assert "1 failed and 1 could not be decided and 1 waived, which is not passed: size.ratio on all items" in told


def test_a_report_with_a_waived_finding_cannot_read_as_passed(tmp_path):
    (tmp_path / "compress").mkdir()
    (tmp_path / "compress" / "gate_report.json").write_text(json.dumps(sample.waived() | {"status": "passed"}))
    with pytest.raises(IntegrityError, match="its findings do not say so"):
        read(tmp_path)


@pytest.mark.parametrize("view", ["markdown", "page", "card"])
def test_a_reason_is_text_and_no_markup(view):
    made = sample.waived()
    made["findings"][1]["waiver"]["reason"] = "<script>alert(1)</script> | **passed**\n# heading"
    made["waivers"]["unused"][0]["metric"] = "<script>x"
    text = views(Document.model_validate(made))[view]
    assert "<script>" not in text
    assert "\n# heading" not in text
    assert view == "page" or "**passed**" not in text


def test_missing_parts_of_a_waiver_do_not_break_a_view():
    made = sample.waived()
    made["findings"][1]["waiver"] = {}
    made["waivers"] = None
    for text in views(Document.model_validate(made)).values():
        assert "WAIVED, NOT PASSED" in text


def test_beside_one_that_passed():
    both = compare(Document.model_validate(sample.passed()), waived())
    assert {(each.slice, each.a, each.b) for each in both.findings} == {
        ("size=6-8", "passed", "waived"),
        ("size=9-12", "passed", "waived"),
    }
    assert "WAIVED, NOT PASSED" in terminal(SideBySide(both))
