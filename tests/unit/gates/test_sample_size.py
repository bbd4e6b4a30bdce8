"""How many items a gate asks for, against exact enumeration and against the gate itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multinomial

from compress.gates.intervals import paired_bounds
from compress.gates.sample_size import items_needed, pairs_needed, pairs_power


@pytest.mark.parametrize(
    ("margin", "discordance", "n"), [(0.02, 0.05, 773), (0.02, 0.10, 1546), (0.01, 0.05, 3092), (0.01, 0.10, 6183)]
)
def test_normal_approximation(margin: float, discordance: float, n: int) -> None:
    assert items_needed(margin, 0.95, discordance) == n


def _power(n: int, margin: float, discordance: float, drop: float) -> float:
    """The chance of every table that passes, by the bounds that gates use."""
    cells = ((discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance)
    most = int(n * discordance + 8 * np.sqrt(n * discordance) + 8)
    found = 0.0
    for b in range(most):
        tables = np.array([(b, c, n - b - c) for c in range(most) if b + c <= n])
        chances = multinomial.pmf(tables, n, cells)
        found += sum(
            chance
            for (lost, gained, _), chance in zip(tables.tolist(), chances, strict=True)
            if chance > 1e-7 and paired_bounds(lost, gained, n, 0.95)[1] < margin
        )
    return found


@pytest.mark.parametrize(
    ("margin", "discordance", "drop"),
    [(0.02, 0.05, 0.0), (0.05, 0.10, 0.0), (0.05, 0.02, 0.01), (0.03, 0.002, 0.0), (0.02, 0.02, 0.005)],
)
def test_power_is_what_was_promised(margin: float, discordance: float, drop: float) -> None:
    n = pairs_needed(margin, 0.95, discordance, drop)
    assert n is not None
    exact = _power(n, margin, discordance, drop)
    assert exact >= 0.8
    assert pairs_power(n, margin, 0.95, discordance, drop) == pytest.approx(exact, abs=1e-4)


def test_two_points_at_five_and_ten_percent() -> None:
    """The normal approximation asks for 773 and 1,546, with a power of 77.7 and 79.6 %."""
    assert [pairs_needed(0.02, 0.95, share) for share in (0.05, 0.10)] == [861, 1618]
    assert _power(773, 0.02, 0.05, 0.0) < 0.78


@pytest.mark.parametrize("needed", [items_needed, pairs_needed])
def test_no_number_of_items_shows_a_drop_of_the_margin(needed: object) -> None:
    assert callable(needed)
    assert needed(0.02, 0.95, 0.05, true_drop=0.02) is None
    assert needed(0.0, 0.95, 0.05) is None


def test_without_any_difference_the_exact_bound_decides() -> None:
    """0.95 of a one-sided bound: nothing lost in 149 items is less than 2 % lost, 0.98 ** 149 < 0.05 < 0.98 ** 148."""
    assert paired_bounds(0, 0, 149, 0.95)[1] < 0.02 < paired_bounds(0, 0, 148, 0.95)[1]
    assert pairs_needed(0.02, 0.95, 0.0) == 149
