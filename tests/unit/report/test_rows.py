import report_sample

from compress.report import rows
from compress.report.document import Document


def read(data):
    return Document.model_validate(data)


def brief(shown):
    return [(row.finding.status, row.finding.metric, row.place, row.compared, row.limit) for row in shown]


def test_what_blocks_comes_first_and_passed_slices_are_one_row():
    assert brief(rows.rows(read(report_sample.blocked()))) == [
        ("failed", "reading.accuracy", "size=6-8", "15.37 pt", "< 2.00 pt"),
        ("inconclusive", "reading.accuracy", "size=9-12", "2.43 pt", "< 2.00 pt"),
        ("passed", "reading.accuracy", "1 of 3 slices", "1.00 pt", "< 2.00 pt"),
        ("passed", "size.ratio", "all items", "0.2100", "≤ 0.2500"),
    ]


def test_a_row_for_many_slices_shows_the_tightest():
    first = rows.rows(read(report_sample.passed()))[0]
    assert (first.place, first.note, first.compared) == ("3 of 3 slices", "tightest: size=9-12", "1.20 pt")


def test_verbose_lists_every_slice_in_order():
    shown = rows.rows(read(report_sample.passed()), verbose=True)
    assert [row.place for row in shown] == ["size=6-8", "size=9-12", "size=19-24", "all items"]


def test_what_failed_is_listed_worst_first():
    data = report_sample.blocked()
    data["findings"][0] |= {"status": "failed", "bound": 0.3, "value": 0.2}
    assert [row.place for row in rows.rows(read(data))[:2]] == ["size=19-24", "size=6-8"]


def test_parts_of_a_rule_are_no_slices():
    data = report_sample.passed()
    cosine = {"value": 0.95, "bound": 0.95, "threshold": 0.9}
    data["findings"] += [
        report_sample.finding("vision.cosine", "parity", which, **cosine) for which in ("minimum", "p1")
    ]
    assert [row.place for row in rows.rows(read(data))][-2:] == ["minimum", "p1"]


def test_the_sentence_names_the_worst_finding():
    assert rows.sentence(read(report_sample.blocked())) == (
        "Of 4 checks of policy clip_release, 1 failed and 1 could not be decided: "
        "reading.accuracy on size=6-8 (drop 14.1 pt)."
    )


def test_a_sentence_for_every_other_status():
    assert rows.sentence(read(report_sample.passed())) == (
        "All 4 checks of policy clip_release hold, measured on the exported bytes."
    )
    assert "1 could not be decided: reading.accuracy on size=19-24 (not measured)" in rows.sentence(
        read(report_sample.undecided())
    )
    assert rows.sentence(read(report_sample.ungated())).startswith("No gate was run (only a trial), so")
    assert "cannot pass" in rows.sentence(read(report_sample.bare("inconclusive")))
