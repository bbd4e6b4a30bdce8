"""Waivers: read strictly, expired to the day, applied to what did not pass only, and never a pass by themselves."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.errors import DocumentError, UsageError
from compress.gates.verdict import Finding, Verdict
from compress.gates.waiving import record, unused, waive
from compress.recipe import document, waivers, writing
from compress.recipe.waivers import Waivers

_TEXT = """\
version: 1
waivers:
  - metric: reading.accuracy
    rule: worst_slice
    slice: size=6-8
    reason: "the scanner is replaced in May; until then nobody reads 6 px"
    expires: 2031-05-31
    by: Ada
  - {metric: latency.ratio, rule: at_most, reason: measured on a busy machine, expires: "2031-04-01"}
"""


def _read(tmp_path: Path, text: str) -> Waivers:
    file = tmp_path / "waivers.yaml"
    file.write_text(text)
    return waivers.read(file)


def _finding(status: str, metric: str = "reading.accuracy", rule: str = "worst_slice", **other: Any) -> Finding:
    told = {"slice": "size=6-8", "value": 0.04, "bound": 0.05, "threshold": 0.02, "n": 9, "reason": "drop 4 pt"}
    return Finding(metric=metric, rule=rule, status=status, because="b", **{**told, **other})  # type: ignore[arg-type]


def _verdict(*findings: Finding) -> Verdict:
    return Verdict("d", "sample", "p", findings)


def test_read(tmp_path: Path) -> None:
    made = _read(tmp_path, _TEXT)
    first, second = made.waivers
    assert first.covers == ("reading.accuracy", "worst_slice", "size=6-8")
    assert (first.expires, first.by, str(first)) == ("2031-05-31", "Ada", "reading.accuracy worst_slice [size=6-8]")
    assert (second.slice, second.by) == (None, None)
    assert made.digest == document.read(tmp_path / "waivers.yaml").digest
    assert _read(tmp_path, writing.dump(made.to_data())) == made


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    slice: size=6-8\n", "    slices: size=6-8\n", "slices: no such key (did you mean slice)"),
        ("2031-05-31", "31.05.2031", "expires: must be a day such as 2031-12-24"),
        ("2031-05-31", "2031-02-30", "expires: must be a day"),
        ("2031-05-31", "20310531", "expires: must be text"),
        ("2031-05-31", '"20310531"', "expires: must be a day"),
        ("2031-05-31", "never", "expires: must be a day"),
        ("2031-05-31", "2031-05-31T00:00", "expires: must be a day"),
        ("    expires: 2031-05-31\n", "", "expires: is required"),
        ('reason: "the scanner', 'why: "the scanner', "reason: is required"),
        ("reason: measured on a busy machine, ", "", "reason: is required"),
        ("measured on a busy machine", "'  '", "reason: must not be empty"),
        ("rule: at_most", "rule: At_most", "rule: must be text like"),
        ("metric: latency.ratio", "metric: '*'", "metric: must be text like"),
        ("version: 1", "version: 2", "version: must be 1"),
        ("    rule: worst_slice\n", "    rule: worst_slice\n    rule: at_most\n", "is there twice"),
    ],
)
def test_refused_with_the_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in _TEXT
    with pytest.raises(DocumentError) as caught:
        _read(tmp_path, _TEXT.replace(old, new))
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("entries", ["[]", "null", "{}", "[3]"])
def test_no_waivers_are_none(tmp_path: Path, entries: str) -> None:
    with pytest.raises(DocumentError):
        _read(tmp_path, f"version: 1\nwaivers: {entries}\n")


def test_one_finding_has_one_waiver(tmp_path: Path) -> None:
    entry = _TEXT.split("\n")[-2]
    with pytest.raises(DocumentError, match=r"waives latency\.ratio at_most twice"):
        _read(tmp_path, f"{_TEXT}{entry}\n")


def test_a_waiver_holds_through_its_last_day(tmp_path: Path) -> None:
    made = _read(tmp_path, _TEXT)
    made.require_valid("waivers.yaml", date(2031, 4, 1))
    with pytest.raises(UsageError) as caught:
        made.require_valid("waivers.yaml", date(2031, 4, 2))
    assert "1 waiver has expired" in str(caught.value)
    assert "latency.ratio at_most: expired on 2031-04-01 (measured on a busy machine)" in str(caught.value)
    assert "reading" not in str(caught.value)
    with pytest.raises(UsageError, match="2 waivers have expired"):
        made.require_valid("waivers.yaml", date(2031, 6, 1))


@pytest.mark.parametrize("status", ["failed", "inconclusive"])
def test_what_is_waived_keeps_everything_but_its_status(tmp_path: Path, status: str) -> None:
    made = _read(tmp_path, _TEXT)
    before = _finding(status)
    verdict = waive(_verdict(before, _finding("passed", slice="size=9-12")), made)
    after = verdict.findings[0]
    assert (verdict.status, verdict.exit_code, after.status) == ("waived", 3, "waived")
    assert after.waiver is not None
    assert (after.waiver.status, after.waiver.expires, after.waiver.by) == (status, "2031-05-31", "Ada")
    plain = {"status", "waiver"}
    assert {key: value for key, value in after.to_data().items() if key not in plain} == {
        key: value for key, value in before.to_data().items() if key not in plain
    }
    assert [each.metric for each in unused(verdict, made)] == ["latency.ratio"]
    told = record(verdict, made)
    assert told is not None
    assert told["digest"] == made.digest
    assert told["unused"] == [
        {"metric": "latency.ratio", "rule": "at_most", "slice": None, "reason": "measured on a busy machine",
         "expires": "2031-04-01", "by": None},
    ]  # fmt: skip


def test_no_waivers_nothing_recorded() -> None:
    verdict = _verdict(_finding("failed"))
    assert waive(verdict, None) is verdict
    assert record(verdict, None) is None


def test_what_passed_is_not_waived(tmp_path: Path) -> None:
    made = _read(tmp_path, _TEXT)
    verdict = waive(_verdict(_finding("passed")), made)
    assert (verdict.status, verdict.findings[0].waiver) == ("passed", None)
    assert len(unused(verdict, made)) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"metric": "reading.words"}, {"rule": "non_inferior"}, {"slice": "size=9-12"}, {"slice": None},
        {"slice": "size=6-80"},
    ],
    ids=str,
)  # fmt: skip
def test_a_waiver_covers_one_finding_and_no_other(tmp_path: Path, other: dict[str, Any]) -> None:
    verdict = waive(_verdict(_finding("failed", **other)), _read(tmp_path, _TEXT))
    assert (verdict.status, verdict.exit_code) == ("failed", 3)


def test_a_waiver_without_a_slice_is_for_all_items_and_not_for_each_slice(tmp_path: Path) -> None:
    made = _read(tmp_path, _TEXT)
    whole = _finding("failed", "latency.ratio", "at_most", slice=None)
    assert waive(_verdict(whole), made).status == "waived"
    sliced = _finding("failed", "latency.ratio", "at_most", slice="batch=1")
    assert waive(_verdict(whole, sliced), made).status == "failed"


_STATUSES = st.sampled_from(["passed", "failed", "inconclusive", "never heard of"])
_PLACES = st.tuples(
    st.sampled_from(["a.b", "c.d"]), st.sampled_from(["at_least", "parity"]), st.sampled_from([None, "x=1"])
)


@settings(deadline=None)
@given(st.lists(st.tuples(_PLACES, _STATUSES), max_size=8), st.lists(_PLACES, min_size=1, max_size=8, unique=True))
def test_no_waiver_ever_makes_a_pass(findings: list[Any], covered: list[Any]) -> None:
    entries = tuple(
        {"metric": metric, "rule": rule, "slice": slice_, "reason": "r", "expires": "2031-01-01"}
        for metric, rule, slice_ in covered
    )
    given_ = Waivers.model_validate({"version": 1, "waivers": entries})
    before = _verdict(*(_finding(status, *place[:2], slice=place[2]) for place, status in findings))
    after = waive(before, given_)
    assert (after.exit_code == 0) == (before.exit_code == 0)
    assert (after.status == "passed") == (before.status == "passed")
    for old, new in zip(before.findings, after.findings, strict=True):
        blocks = old.status in ("failed", "inconclusive") and (old.metric, old.rule, old.slice) in covered
        assert new.status == ("waived" if blocks else old.status)
        assert (new.waiver is not None) == blocks
    used = {(each.metric, each.rule, each.slice) for each in after.findings if each.waiver}
    assert {each.covers for each in unused(after, given_)} == set(covered) - used
