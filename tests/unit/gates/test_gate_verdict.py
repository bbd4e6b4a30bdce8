"""One status everywhere: verdict, exit code, JSON and JUnit."""

from __future__ import annotations

import itertools
import json
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core import digest
from compress.gates.junit import junit
from compress.gates.verdict import Finding, Status, Verdict, Waived

_STATUSES: tuple[Status, ...] = ("passed", "failed", "inconclusive", "waived")


def _finding(status: Status = "passed", **other: object) -> Finding:
    return Finding(metric="a.b", rule="census", status=status, reason="r", because="b", **other)  # type: ignore[arg-type]


def _verdict(*findings: Finding) -> Verdict:
    return Verdict("d", "sample", "p", findings)


def _junit_status(text: str) -> Status:
    """What a build server makes of it: what is waived is a skipped test, and a failure that is not a gate's."""
    root = ElementTree.fromstring(text)
    if any(case.find("failure") is not None for case in root.iter("testcase") if case.get("classname") != "policy"):
        return "failed"
    if root.findall(".//error"):
        return "inconclusive"
    return "waived" if root.findall(".//failure") else "passed"


@pytest.mark.parametrize(
    "statuses", [each for count in range(4) for each in itertools.product(_STATUSES, repeat=count)], ids=" ".join
)
def test_one_status_everywhere(statuses: tuple[Status, ...]) -> None:
    verdict = _verdict(*map(_finding, statuses))
    order: tuple[Status, ...] = ("failed", "inconclusive", "waived", "passed")
    expected = next((each for each in order if each in statuses), "inconclusive")
    written = json.loads(digest.canonical(verdict.to_data()))
    assert verdict.status == written["status"] == _junit_status(junit(verdict)) == expected
    assert verdict.exit_code == {"passed": 0, "failed": 3, "inconclusive": 4, "waived": 3}[expected]
    assert [each["status"] for each in written["findings"]] == list(statuses)


def test_an_unknown_status_does_not_pass() -> None:
    verdict = _verdict(_finding(), _finding("skipped"))  # type: ignore[arg-type]
    assert (verdict.exit_code, _junit_status(junit(verdict))) == (4, "inconclusive")


def test_json() -> None:
    found = _finding(
        "inconclusive", slice="size=6", value=math.nan, bound=math.inf, threshold=0.02, n=12, needed=773
    )  # fmt: skip
    assert _verdict(found).to_data() == {
        "digest": "d",
        "policy_name": "sample",
        "policy_digest": "p",
        "status": "inconclusive",
        "findings": [
            {
                "metric": "a.b",
                "rule": "census",
                "slice": "size=6",
                "status": "inconclusive",
                "value": None,
                "bound": None,
                "threshold": 0.02,
                "n": 12,
                "reason": "r",
                "because": "b",
                "needed": 773,
                "waiver": None,
            }
        ],
    }


def test_junit_tells_why_and_until_when_and_is_not_green() -> None:
    told = Waived("failed", "the scanner is replaced in May", "2031-05-31", "Ada")
    text = junit(_verdict(_finding(), _finding("waived", waiver=told)))
    root = ElementTree.fromstring(text)
    skipped = root.find(".//skipped")
    assert skipped is not None
    assert skipped.get("message") == "waived by Ada until 2031-05-31: the scanner is replaced in May; failed: r"
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]
    assert [each.get("message") for each in root.findall(".//failure")] == ["1 waived, which is not passed"]


def test_junit_counts() -> None:
    text = junit(_verdict(_finding(), _finding("failed"), _finding("inconclusive"), _finding("inconclusive")))
    for suite in ElementTree.fromstring(text).iter():
        if suite.tag in ("testsuites", "testsuite"):
            assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["4", "1", "2"]
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')


@settings(deadline=None)
@given(st.text(), st.text())
def test_junit_survives_any_text(reason: str, name: str) -> None:
    found = Finding(metric="a.b", rule="r", slice=name, status="failed", reason=reason, because="<script>&]]>\x00")
    text = junit(_verdict(found))
    (failure,) = ElementTree.fromstring(text.encode("utf-8")).findall(".//failure")
    assert "<script>" not in text
    assert "<script>&]]>\ufffd" in (failure.text or "")
    assert junit(_verdict(found)) == text
