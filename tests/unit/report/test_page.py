import functools
import re
from html.parser import HTMLParser

import pytest
import report_sample

from compress.report import page
from compress.report.document import Document

EVERY = {
    "passed": report_sample.passed, "failed": report_sample.blocked, "inconclusive": report_sample.undecided,
    "ungated": report_sample.ungated,
}  # fmt: skip
VOID = {"meta", "link", "br", "hr", "img", "input"}


def render(data) -> str:
    return page.render(Document.model_validate(data))


@functools.cache
def page_of(make) -> str:
    """The page of a sample, drawn once for all tests."""
    return render(make())


class Reader(HTMLParser):
    """Elements, and whether each one that opens is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in {"src", "href", "xlink:href", "action", "data"}]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in {"src", "href", "xlink:href", "action", "data"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


@pytest.mark.parametrize(
    ("status", "word"),
    [("passed", "PASSED"), ("failed", "BLOCKED"), ("inconclusive", "INCONCLUSIVE"), ("ungated", "UNGATED")],
)
def test_every_status_is_said_in_the_banner(status, word):
    text = page_of(EVERY[status])
    assert re.search(rf'<header class="banner {status}">.*?<h1>.*?{word}</h1>', text, re.DOTALL)
    parse(text)


@pytest.mark.parametrize("make", [*EVERY.values(), report_sample.bare])
def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(make):
    page_text = page_of(make)
    read = parse(page_text)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(read.tags)
    assert all(link.startswith("#") or link == "data:," for link in read.links)
    assert set(re.findall(r"https?://[^\"\s]*", page_text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "url(" not in re.sub(r"url\(#[A-Za-z0-9]+\)", "", page_text)


def test_every_failed_or_undecided_slice_is_there_with_its_numbers():
    text = parse(page_of(report_sample.blocked)).text
    for expected in ("size=6-8", "47.0 %", "32.9 %", "14.10 pt", "15.37 pt", "< 2.00 pt", "drop 14.1 pt",
                     "size=9-12", "2.43 pt", "about 4,200 items would decide"):  # fmt: skip
        assert expected in text


def test_every_policy_reason_and_digest_is_there():
    text = parse(page_of(report_sample.passed)).text
    for expected in ("read or not", "a" * 64, "b" * 64, "0123456789abcdef" * 4, "layers.0.fc1", "some cpu", "2.0.0"):
        assert expected in text


def test_what_is_missing_says_so():
    text = parse(page_of(report_sample.bare)).text
    assert text.count("Not measured.") == 5
    assert "No step was recorded." in text


@pytest.mark.parametrize(
    "key", sorted(report_sample.passed().keys() - {"version", "name", "digest", "status", "findings"})
)
def test_any_other_key_may_be_null_or_missing(key):
    data = report_sample.blocked()
    parse(render(data | {"scores": [], key: None}))  # without scores, because slice plots take long


def nullified(value):
    """The same document with every number but the version null."""
    if isinstance(value, dict):
        return {key: each if key == "version" else nullified(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nullified(each) for each in value]
    return None if isinstance(value, int | float) else value


def test_every_number_may_be_null():
    assert "not measured" in parse(render(nullified(report_sample.blocked()))).text


def test_same_document_same_bytes():
    assert render(report_sample.blocked()) == page_of(report_sample.blocked)


def hostile(value, payload):
    """The same document with a payload at the end of every text that is free."""
    if isinstance(value, dict):
        return {key if key in FIELDS else key + payload: each if key in FIXED else hostile(each, payload)
                for key, each in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [hostile(each, payload) for each in value]
    return value + payload if isinstance(value, str) else value


FIXED = {"status", "rule"}


def fields(value) -> set[str]:
    if isinstance(value, dict):
        inner = (fields(each) for key, each in value.items() if key not in {"parts", "packages"})
        return {*value, *(name for names in inner for name in names)}
    return {name for each in value for name in fields(each)} if isinstance(value, list) else set()


FIELDS = fields(report_sample.blocked())


PAYLOADS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style>", "]]></svg><b>", "{{ 7 * 7 }}")


def test_no_text_becomes_markup():
    payload = "".join(PAYLOADS)
    plain, attacked = parse(page_of(report_sample.blocked)), parse(render(hostile(report_sample.blocked(), payload)))
    assert set(attacked.tags) <= set(plain.tags)
    assert attacked.text.count(payload) > 50


def test_damage_is_told_with_how_many_were_looked_at():
    row = {"metric": "<b>", "slice": "size=6-8", "n": 1500, "drop": 0.0534, "p": 2e-11, "adjusted": 1.4e-9}
    told = {"damage": {"level": 0.05, "tested": 70, "slices": [row]}}
    text = page.render(Document.model_validate(report_sample.blocked() | told))
    assert "&lt;b&gt;" in text
    assert "5.34 pt" in text
    assert "1e-9" in text
    assert "Of 70 slices" in text
    none = page.render(Document.model_validate(report_sample.passed() | {"damage": {"tested": 70, "level": 0.05}}))
    assert "None of 70 slices." in none


def test_what_a_search_tried_is_a_table():
    table = [["tower", "what goes", "chosen"], ["text", "qk <50 %>", "yes"]]
    shown = render({**report_sample.passed(), "steps": [{"use": "prune.auto", "summary": "searched", "table": table}]})
    assert "what was tried" in shown
    assert re.search(r"<tr><td>text</td><td>qk &lt;50 %&gt;</td><td>yes</td></tr>", shown)
    assert "what was tried" not in render(report_sample.passed())
