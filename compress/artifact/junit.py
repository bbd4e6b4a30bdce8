"""How many failures, errors and skips a JUnit file states, read with a bare parser that accepts no document type."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from xml.parsers import expat

from compress.core.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Counts:
    """Test cases with a <failure>, with an <error> and with a <skipped>."""

    failures: int
    errors: int
    skipped: int = 0


def counts(content: bytes, where: str) -> Counts:
    """Count them. Raises IntegrityError where the XML is malformed, has a DTD, or its own totals disagree."""
    cases: Counter[str] = Counter()
    totals: Counter[str] = Counter()

    def start(tag: str, attributes: dict[str, str]) -> None:
        cases[tag] += 1
        if tag == "testsuite":
            totals.update({key: int(attributes.get(key, "0")) for key in ("failures", "errors", "skipped")})

    parser = expat.ParserCreate(encoding="utf-8")
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError) as error:
        raise IntegrityError(f"malformed JUnit: {error}", where) from error
    found = Counts(cases["failure"], cases["error"], cases["skipped"])
    if found != Counts(totals["failures"], totals["errors"], totals["skipped"]):
        raise IntegrityError("the totals of the test suites are not the number of failed test cases", where)
    return found


def _refuse(*_: object) -> None:
    raise ValueError("a document type declaration is not allowed")
