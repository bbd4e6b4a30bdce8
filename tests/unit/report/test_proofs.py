"""Where an artifact was proved, on the page and on the card: what was not measured says so."""

import report_sample

from compress.report import card, page
from compress.report.document import Document


def document(**changes):
    cell = {"file": "onnx/vision_model_int8.onnx", "tower": "vision", "runtime": "onnxruntime"}
    ran = {**cell, "provider": "CPUExecutionProvider", "loaded": True, "ran": True, "parity": 0.999875,
           "latency_ms": 3.25, "note": ""}  # fmt: skip
    broken = {**cell, "runtime": "openvino", "provider": "CPU", "loaded": True, "ran": False, "note": "<no kernel>"}
    absent = {**cell, "provider": "TensorrtExecutionProvider", "loaded": None, "ran": None, "note": "not here"}
    told = {"target": {"name": "tensorrt", "proof": "linted-only"}, "proofs": [ran, broken, absent]}
    return Document.model_validate({**report_sample.passed(), **told, **changes})


def test_the_page_has_every_cell():
    shown = page.render(document())
    section = shown.split('<h2 id="proofs">')[1].split("</section>")[0]
    rows = section.split("<tbody>")[1].split("<tr>")[1:]
    assert ["yes</td><td>yes" in row for row in rows] == [True, False, False]
    assert "0.999875" in rows[0]
    assert "3.25" in rows[0]
    assert "yes</td><td>no" in rows[1]
    assert "&lt;no kernel&gt;" in rows[1]
    assert rows[2].count("not measured") == 4
    assert "no engine was built" in section


def test_the_card_says_linted_only():
    assert "Made for tensorrt, **linted-only**" in card.render(document())
    proved = document(target={"name": "tensorrt", "proof": None})
    assert "linted-only" not in card.render(proved)
    assert "linted-only" not in page.render(proved)


def test_an_old_report_has_no_such_section():
    old = Document.model_validate(report_sample.passed())
    assert "Where it was proved" not in page.render(old)
    assert "Made for" not in card.render(old)
