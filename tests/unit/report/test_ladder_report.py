"""The ladder of a rescue, in the terminal and on the page: every rung, what blocked it, and what the taken one cost."""

import io

import report_sample
from rich.console import Console

from compress.report import ladder, page
from compress.report.document import Document
from compress.report.summary import Summary


def judged(metric, status, **numbers):
    return {"metric": metric, "rule": "non_inferior", "slice": None, "status": status, **numbers}


FAILED = [
    judged("reading.accuracy", "inconclusive", value=0.01, bound=0.03, threshold=0.02),
    judged("reading.accuracy", "failed", slice="size=6-8", value=0.08, bound=0.09, threshold=0.02),
    judged("zero_shot.accuracy", "passed", value=0.0, bound=0.001, threshold=0.01),
]
TRIED = [
    {"rung": "as written", "status": "failed", "size_ratio": 0.14, "latency_ratio": 0.9, "findings": FAILED},
    {"rung": "1 in float", "what": "<vision:mlp.fc1@0>", "status": "over budget", "size_ratio": 0.5, "reason": "much"},
    {"rung": "finer blocks", "what": "block 128 -> 32", "status": "passed", "size_ratio": 0.16, "latency_ratio": 0.95},
]
ROW = {"tower": "vision", "site": "layers.0.fc1", "role": "mlp.fc1", "mean": 0.25, "p1": 0.5}


def document(**changes):
    told = {"tried": TRIED, "taken": "finer blocks", "why": "the first rung that passes"}
    told["sensitivity"] = {"rows": [ROW], "samples": {"vision": 64}, "held_out": True}
    return Document.model_validate({**report_sample.passed(), "rescue": {**told, **changes}})


def shown(report):
    console = Console(file=io.StringIO(), width=160)
    console.print(Summary(report))
    return console.file.getvalue()


def test_the_terminal_lists_every_rung_and_marks_the_one_taken():
    text = shown(document())
    lines = [line for line in text.splitlines() if any(each["rung"] in line for each in TRIED)]
    assert "reading.accuracy size=6-8: 9.00 pt, limit 2.00 pt and 1 more" in lines[0]
    assert "over budget" in lines[1]
    assert lines[2].strip().startswith("→ finer blocks")
    assert "size 0.140 -> 0.160; time 0.900 -> 0.950" in text.replace("\n", " ").replace(", time", "; time")


def test_the_page_has_the_ladder_and_the_layers():
    section = page.render(document()).split('<h2 id="rescue">')[1].split("</section>")[0]
    assert section.count("<tr>") == 2 + len(TRIED) + 1
    assert "&lt;vision:mlp.fc1@0&gt;" in section
    assert "no step was shown" in section
    assert "were shown" in page.render(document(sensitivity={"rows": [ROW], "samples": {}, "held_out": False}))
    assert 'id="rescue"' not in page.render(Document.model_validate(report_sample.passed()))


def test_where_none_passed_the_sentence_says_so():
    told = document(taken="as written", why="no rung passes").rescue
    assert ladder.sentence(told) == "taken: as written; no rung passes"
