"""A verdict as JUnit XML, which every build server shows: failed is a failure, inconclusive an error.

A waived finding is a skipped test, which says why and until when. Build servers take a suite with skipped tests for a
good one, so one more test case fails for all of them together: what is waived has not passed.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from compress.gates.verdict import Finding, Verdict

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS: Final = {"passed": "system-out", "failed": "failure", "inconclusive": "error", "waived": "skipped"}


def junit(verdict: Verdict) -> str:
    """The XML document; the same text for the same verdict. A verdict without findings is an error of its own."""
    suite = ElementTree.Element("testsuite", name=_legal(verdict.policy_name))
    properties = ElementTree.SubElement(suite, "properties")
    told = {"digest": verdict.digest, "policy_digest": verdict.policy_digest, "status": verdict.status}
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", name=name, value=_legal(value))
    for finding in verdict.findings:
        _case(suite, finding)
    if not verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="policy", name="findings")
        ElementTree.SubElement(case, "error", message="no gate came to a finding")
    waived = sum(finding.status == "waived" for finding in verdict.findings)
    if waived:
        case = ElementTree.SubElement(suite, "testcase", classname="policy", name="waivers")
        ElementTree.SubElement(case, "failure", message=f"{waived} waived, which is not passed")
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    root = ElementTree.Element("testsuites", dict(suite.attrib))
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, finding: Finding) -> None:
    name = finding.rule if finding.slice is None else f"{finding.rule}[{finding.slice}]"
    case = ElementTree.SubElement(suite, "testcase", classname=_legal(finding.metric), name=_legal(name))
    tag = _TAGS.get(finding.status, "error")
    detail = ElementTree.SubElement(case, tag)
    detail.text = _legal(f"{finding.reason}\nbecause: {finding.because}")
    if tag != "system-out":
        detail.set("message", _legal(_message(finding)))


def _message(finding: Finding) -> str:
    waiver = finding.waiver
    if waiver is None:
        return finding.reason
    by = f" by {waiver.by}" if waiver.by else ""
    return f"waived{by} until {waiver.expires}: {waiver.reason}; {waiver.status}: {finding.reason}"


def _legal(text: str) -> str:
    """Characters that XML cannot hold at all are replaced; the others are escaped when written."""
    return _NOT_XML.sub("\ufffd", text)
