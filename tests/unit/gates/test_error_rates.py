"""The benchmark of the gates, coarsely: the rates that `make bench-gates` prints are what the gates promise."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

_FILE = Path(__file__).parents[3] / "benchmarks" / "gates.py"


@pytest.fixture(scope="module")
def gates() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gates", _FILE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


def test_two_points_lost_on_a_hundred_items_are_blocked(gates: ModuleType) -> None:
    *blocked, equal = gates.small_samples(200)
    assert all(row.rate >= 0.95 for row in blocked)
    assert equal.draws >= 100
    assert equal.rate >= 0.80


@pytest.mark.long
def test_every_promise_holds(gates: ModuleType) -> None:
    made = list(gates.rows(tiny=True))
    assert [row for row in made if not row.holds] == []
    assert all(row.rate <= 0.08 for row in made if row.promise == "<= 5 %" and row.draws >= 400)
    assert all(row.rate >= 0.75 for row in made if row.promise == ">= 80 %")


def test_a_broken_promise_is_told(gates: ModuleType) -> None:
    """By hand: 0 of 20 has an upper end of 1 - 0.005 ** (1 / 20) = 23 %; 40 of 400 cannot be 5 %."""
    assert gates.row("x", "1", (0, 20), ("<=", 0.05)).high == pytest.approx(1 - 0.005 ** (1 / 20))
    assert not gates.row("x", "1", (40, 400), ("<=", 0.05)).holds
    assert not gates.row("x", "1", (189, 200), (">=", 0.95)).holds
    assert gates.row("x", "1", (190, 200), (">=", 0.95)).holds
    assert not math.isnan(gates.row("x", "1", (400, 400), (">=", 0.8)).low)
