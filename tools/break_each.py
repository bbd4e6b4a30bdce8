"""Break each property that must survive once, in a copy of the tree, and see its tests go red.

python tools/break_each.py               # every break: some minutes
python tools/break_each.py --row 12      # those of one row
python tools/break_each.py --table       # write docs/survival.md; runs nothing
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.recipe.document import decode, read
from compress.recipe.fields import PositiveInt, Strict, Text

ROOT = Path(__file__).resolve().parent.parent
BREAKS = ROOT / "tools" / "break_each.yaml"
DOCUMENT = ROOT / "docs" / "survival.md"
BEGIN, END = "<!-- rows: begin, written by tools/break_each.py -->", "<!-- rows: end -->"
FAILED = 1
"""What pytest ends with where tests ran and some failed; an error of its own would prove nothing."""


class Change(Strict):
    """Text that stands exactly once in a file, and what replaces it."""

    old: Text
    new: str


class Break(Change):
    """One property, the change that breaks it, and the tests that must then fail."""

    row: PositiveInt
    property: Text
    file: Text
    tests: tuple[Text, ...]
    also: Change | None = None


class Breaks(Strict):
    """All of them."""

    breaks: tuple[Break, ...]


@dataclass(frozen=True)
class Copy:
    """A copy of the tracked and new files, in which sources are changed and put back."""

    folder: Path

    @classmethod
    def of_tree(cls, folder: Path) -> Copy:
        """Copy whatever git does not ignore; links stay links."""
        words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, folder / name
            if os.path.lexists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        return cls(folder)

    def pytest(self, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
        """Run tests of the copy on the copy's package; the first failure is enough."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        own = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            words, cwd=self.folder, env={**os.environ, **own}, capture_output=True, text=True, check=False
        )

    def broken(self, each: Break) -> subprocess.CompletedProcess[str]:
        """Run the tests of a break with its change made, and put everything back."""
        path = self.folder / each.file
        content = path.read_text("utf-8")
        try:
            path.write_text(changed(content, each), "utf-8")
            return self.pytest(each.tests)
        finally:
            path.write_text(content, "utf-8")


def changed(content: str, each: Break) -> str:
    """A source with the change made. Raises ValueError where its text does not stand there exactly once."""
    for change in (each, *([each.also] if each.also else [])):
        if content.count(change.old) != 1:
            raise ValueError(f"{each.file} has {content.count(change.old)} times: {change.old}")
        content = content.replace(change.old, change.new)
    return content


def load() -> tuple[Break, ...]:
    """Every break. Raises DocumentError where the file is wrong."""
    return decode(read(BREAKS), Breaks).breaks


def run(breaks: Sequence[Break]) -> list[str]:
    """Try all of them; returns what is wrong, a line each."""
    with tempfile.TemporaryDirectory() as place:
        copy = Copy.of_tree(Path(place))
        whole = copy.pytest(dict.fromkeys(test for each in breaks for test in each.tests))
        if whole.returncode:
            return [f"the tests do not pass as it is:\n{whole.stdout[-3000:]}{whole.stderr[-1000:]}"]
        print(whole.stdout.splitlines()[-1], flush=True)
        return [wrong for each in breaks if (wrong := _tried(copy, each))]


def _tried(copy: Copy, each: Break) -> str:
    began = time.monotonic()
    done = copy.broken(each)
    red = done.returncode == FAILED
    print(f"{'red  ' if red else 'GREEN'} {time.monotonic() - began:5.1f} s  {each.row:2} {each.property}", flush=True)
    return "" if red else f"row {each.row}, {each.property}: pytest ended {done.returncode}\n{done.stdout[-1500:]}"


def table(breaks: Sequence[Break]) -> str:
    """The rows in Markdown."""
    head = ("Row", "Property", "Tests", "Broken by changing"), ("---:", "---", "---", "---")
    rows = [(str(each.row), each.property, "<br>".join(map(_code, each.tests)), _code(each.file)) for each in breaks]
    return "\n".join(f"| {' | '.join(line)} |" for line in (*head, *rows))


def _code(text: str) -> str:
    return f"`{text}`"


def write(breaks: Sequence[Break]) -> None:
    """Put the table into its document."""
    before, rest = DOCUMENT.read_text("utf-8").split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table(breaks)}\n\n{END}{rest.split(END)[1]}", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Break, look, tell; ends 1 where a property could be broken and nothing noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--row", type=int, action="append", help="only breaks of this row")
    parser.add_argument("--table", action="store_true", help="write docs/survival.md and run nothing")
    given: Any = parser.parse_args(argv)
    breaks = load()
    if given.table:
        write(breaks)
        return 0
    chosen = [each for each in breaks if given.row is None or each.row in given.row]
    wrong = run(chosen)
    print("\n".join(wrong) or f"{len(chosen)} properties broken, each noticed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
