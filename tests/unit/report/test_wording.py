import pytest

from compress.report import wording
from compress.report.document import Span


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.25, "0.2500"), (0.9612, "0.9612"), (1.0, "1"), (2400000, "2,400,000"),
     (12.345, "12.35"), (0.00001, "1.0e-05"), (-0.00001, "-1.0e-05")],
)  # fmt: skip
def test_number(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.012, "1.20 pt"), (-0.0041, "-0.41 pt"), (-0.000001, "0.00 pt")]
)
def test_points(value, text):
    assert wording.points(value) == text


def test_share():
    assert wording.share(0.7134) == "71.3 %"


def test_a_number_just_beyond_its_limit_never_looks_equal_to_it():
    assert wording.apart(0.02000001, 0.02, wording.points, 2) == ("2.000001 pt", "2.000000 pt")
    assert wording.apart(0.02, 0.02, wording.points, 2) == ("2.00 pt", "2.00 pt")
    assert wording.apart(0.05, 0.02, wording.points, 2) == ("5.00 pt", "2.00 pt")


def test_span():
    assert wording.span(Span(value=0.713, low=0.69, high=0.736), wording.share, 1) == "71.3 % (69.0 to 73.6)"
    assert wording.span(Span(value=0.713), wording.share, 1) == "71.3 %"
    assert wording.span(Span(), wording.share, 1) == wording.span(None, wording.share, 1) == "not measured"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_449_000, "1.45 MB"), (2e9, "2.00 GB")],
)
def test_size(value, text):
    assert wording.size(value) == text


def test_slices_are_ordered_by_their_numbers():
    names = ["19-24", "6-8", "none", "9-12", "0O", "plain"]
    assert sorted(names, key=wording.order) == ["0O", "6-8", "9-12", "19-24", "plain", "none"]
