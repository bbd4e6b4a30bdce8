"""Every property that must survive has a test, and a change that would break it, which still fits the source."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("break_each", ROOT / "tools" / "break_each.py")
break_each = importlib.util.module_from_spec(SPEC)
sys.modules["break_each"] = break_each
SPEC.loader.exec_module(break_each)
BREAKS = break_each.load()
ROWS = 21


def test_every_row_is_broken_once():
    assert {each.row for each in BREAKS} == set(range(1, ROWS + 1))


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: f"{each.row} {each.property}")
def test_a_break_fits_the_source_and_names_tests_that_are_there(each):
    content = (ROOT / each.file).read_text("utf-8")
    assert compile(break_each.changed(content, each), each.file, "exec")
    for test in each.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text("utf-8")
        assert not name or re.search(rf"^def {re.escape(name.split('[')[0])}\(", text, re.MULTILINE)


def test_the_page_shows_them_all():
    assert break_each.table(BREAKS) in (ROOT / "docs" / "survival.md").read_text("utf-8")
