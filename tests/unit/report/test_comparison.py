import report_sample

from compress.report import comparison
from compress.report.comparison import Disagreement
from compress.report.document import Document


def compare(a, b):
    return comparison.compare(Document.model_validate(a), Document.model_validate(b))


def test_numbers_stand_side_by_side():
    both = compare(report_sample.blocked(), report_sample.passed())
    worst = next(pair for pair in both.scores if pair.what == "reading.accuracy, size=6-8")
    assert (worst.a, worst.b, worst.share) == (0.329, 0.795, True)
    assert both.sizes[0].difference == 0
    assert both.latency[0].a == both.latency[0].b == 0.76


def test_only_findings_that_differ_are_listed():
    assert compare(report_sample.blocked(), report_sample.passed()).findings == (
        Disagreement("reading.accuracy", "worst_slice", "size=6-8", "failed", "passed"),
        Disagreement("reading.accuracy", "worst_slice", "size=9-12", "inconclusive", "passed"),
    )
    assert compare(report_sample.passed(), report_sample.passed()).findings == ()


def test_what_one_of_them_lacks_has_no_difference():
    both = compare(report_sample.passed(), report_sample.bare())
    assert {pair.b for pair in (*both.sizes, *both.latency, *both.scores)} == {None}
    assert both.scores[0].difference is None
    assert {each.b for each in both.findings} == {None}


def test_says_what_makes_them_hard_to_compare():
    other = report_sample.passed()
    other["policy"]["digest"] = "c" * 64
    assert compare(report_sample.passed(), other).notes == (
        "They were gated with different policies: compare with care.",
    )
    assert compare(report_sample.passed(), report_sample.blocked()).notes == ()
