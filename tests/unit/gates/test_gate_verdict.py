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
from compress.gates.verdict import Finding, Status, Verdict

_STATUSES: tuple[Status, ...] = ("passed", "failed", "inconclusive")


def _finding(status: Status = "passed", **other: object) -> Finding:
    return Finding(metric="a.b", rule="census", status=status, reason="r", because="b", **other)  # type: ignore[arg-type]


def _verdict(*findings: Finding) -> Verdict:
    return Verdict("d", "sample", "p", findings)


def _junit_status(text: str) -> Status:
    """What a build server makes of it."""
    root = ElementTree.fromstring(text)
    if root.findall(".//failure"):
        return "failed"
    return "inconclusive" if root.findall(".//error") else "passed"


@pytest.mark.parametrize(
    "statuses", [each for count in range(4) for each in itertools.product(_STATUSES, repeat=count)], ids=" ".join
)
def test_one_status_everywhere(statuses: tuple[Status, ...]) -> None:
    verdict = _verdict(*map(_finding, statuses))
    expected: Status = "passed" if statuses and set(statuses) == {"passed"} else "inconclusive"
    expected = "failed" if "failed" in statuses else expected
    written = json.loads(digest.canonical(verdict.to_data()))
    assert verdict.status == written["status"] == _junit_status(junit(verdict)) == expected
    assert verdict.exit_code == {"passed": 0, "failed": 3, "inconclusive": 4}[expected]
    assert [each["status"] for each in written["findings"]] == list(statuses)


def test_an_unknown_status_does_not_pass() -> None:
    verdict = _verdict(_finding(), _finding("waived"))  # type: ignore[arg-type]
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
            }
        ],
    }


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
