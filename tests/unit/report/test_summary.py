import io

import report_sample
from rich.console import Console

from compress.report.document import Document
from compress.report.inspection import Inspection
from compress.report.summary import Summary, escaped


def printed(data, width: int, verbose: bool = False) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(Summary(Document.model_validate(data), verbose))
    return console.file.getvalue()


def test_a_wide_terminal_shows_every_number():
    lines = printed(report_sample.blocked(), 140).splitlines()
    row = next(line for line in lines if "size=6-8" in line and line.startswith("✕"))
    assert row.split("  ")[0] == "✕ failed"
    for cell in ("47.0 %", "32.9 %", "14.10 pt", "15.37 pt", "< 2.00 pt", "1,500"):
        assert cell in row


def test_a_narrow_terminal_keeps_what_decided():
    text = printed(report_sample.blocked(), 70)
    assert "47.0 %" not in text
    assert "15.37 pt   < 2.00 pt" in text
    assert max(map(len, text.splitlines())) <= 70


def test_passed_slices_are_counted_unless_verbose():
    assert "3 of 3 slices" in printed(report_sample.passed(), 140)
    assert "size=19-24" in printed(report_sample.passed(), 140, verbose=True)


def test_what_numbers_do_not_say_is_said():
    assert "? reading.accuracy, size=9-12: drop 1.2 pt; about 4,200 items would decide" in printed(
        report_sample.blocked(), 140
    )


def test_text_of_an_artifact_is_no_style():
    data = report_sample.blocked() | {"name": "[red]x[/red] :smile:"}
    data["findings"][1]["metric"] = "[link=http://x]m"
    assert "[red]x[/red] :smile:" in printed(data, 140)
    assert printed(data, 160).count("[link=http://x]m") == 2  # in the sentence and in the table
    console = Console(width=140, file=io.StringIO())
    console.print(Inspection(Document.model_validate(data), {"[bold]f": 1}, verbose=True))
    assert "[bold]f" in console.file.getvalue()


def test_escaped():
    assert escaped("worst_slice _x_ a|b <i> *") == r"worst_slice \_x\_ a\|b &lt;i&gt; \*"


def _damaged(count: int) -> dict:
    row = {"metric": "reading.accuracy", "n": 1500, "drop": 0.0534, "p": 2e-11, "adjusted": 1.4e-9}
    slices = [{**row, "slice": f"size={at}"} for at in range(count)]
    return report_sample.blocked() | {"damage": {"level": 0.05, "tested": 70, "slices": slices}}


def test_damaged_slices_are_one_line():
    lines = printed(_damaged(1), 140).splitlines()
    assert lines[-1] == "damaged for sure: reading.accuracy size=0 (-5.3 pt, p 1e-9)"
    assert "damaged" not in printed(_damaged(0), 140)
    assert "size=2 (-5.3 pt, p 1e-9) and 4 more" in printed(_damaged(7), 400)
    assert "size=6 (" in printed(_damaged(7), 400, verbose=True)
