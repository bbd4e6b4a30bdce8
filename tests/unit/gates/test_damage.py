"""Which slices are damaged: p-values by hand, Holm by hand, and how often an equal candidate is accused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gates_sample import continuous, outcomes
from hypothesis import given
from hypothesis import strategies as st

from compress.gates.damage import damages, holm, worse
from compress.gates.outcomes import Outcomes, Unmeasured


def test_holm_by_hand() -> None:
    """Of four: 4 * 0.01, 3 * 0.015, 2 * 0.03, 1 * 0.04 raised to the one before."""
    assert holm([0.04, 0.01, 0.03, 0.015]) == pytest.approx((0.06, 0.04, 0.06, 0.045))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_laws(rates: list[float]) -> None:
    """Never below the rate nor above Bonferroni's, in the same order, and all the same however they are ordered."""
    adjusted = holm(rates)
    assert all(p <= a <= min(1.0, p * len(rates)) for p, a in zip(rates, adjusted, strict=True))
    assert [a for _, a in sorted(zip(rates, adjusted, strict=True))] == sorted(adjusted)
    assert holm(rates[::-1])[::-1] == adjusted


def _all(measured: Outcomes) -> np.ndarray:
    return np.ones(len(measured.items), dtype=bool)


def test_exact_p_by_hand() -> None:
    """Nine of ten changes are losses: (1 + 10) / 2 ** 10."""
    assert worse(outcomes(100, lost=9, gained=1), _all(outcomes(100))) == pytest.approx(11 / 1024)
    assert worse(outcomes(100), _all(outcomes(100))) == 1.0
    assert worse(outcomes(100, gained=10), _all(outcomes(100))) == 1.0


def test_clusters_are_one_observation_each() -> None:
    """Five images of four captions lose all of them: 2 ** -5, not 2 ** -20."""
    labels = tuple(str(at // 4) for at in range(80))
    assert worse(outcomes(80, lost=20, clusters=labels), _all(outcomes(80))) == pytest.approx(2**-5)


def _two_sizes(lost: int, gained: int) -> Outcomes:
    measured = outcomes(2000, lost=lost, gained=gained)
    return Outcomes(
        measured.items, measured.reference, measured.candidate, slices={"size": ("6",) * 1000 + ("8",) * 1000}
    )


def test_names_the_slice_that_is_damaged_and_no_other() -> None:
    found = damages({"reading.accuracy": _two_sizes(40, 2), "words.accuracy": outcomes(500, lost=3, gained=3)})
    (only,) = found.slices
    assert (found.tested, only.metric, only.slice, only.n) == (3, "reading.accuracy", "size=6", 1000)
    assert only.drop == 0.038
    assert only.p == pytest.approx(sum(math.comb(42, k) for k in range(40, 43)) / 2**42)
    assert only.adjusted == pytest.approx(3 * only.p)


def test_a_candidate_that_is_not_finite_is_damaged() -> None:
    measured = outcomes(100)
    measured.candidate[:30] = math.nan
    assert [each.drop for each in damages({"a.b": measured}).slices] == [0.3]


def test_what_cannot_be_paired_is_left_out() -> None:
    cosines = continuous(np.linspace(0.5, 1.0, 100))
    assert damages({"a.b": Unmeasured("crashed"), "c.d": cosines, "e.f": outcomes(0)}).tested == 0


def test_error_rate_of_texts_is_compared() -> None:
    rng = np.random.default_rng(0)
    characters = rng.integers(5, 30, size=200).astype(float)
    worse_reading = continuous(1 - rng.binomial(2, 0.3, size=200) / characters, 1.0, weights=characters)
    (only,) = damages({"words.cer": worse_reading}).slices
    assert only.drop == pytest.approx(float(((1 - worse_reading.candidate) * characters).sum() / characters.sum()))


def test_equal_candidates_are_rarely_accused() -> None:
    """20 slices of a candidate that loses as much as it gains: any one named in at most one report of twenty."""
    accused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        change = rng.choice([-1.0, 0.0, 1.0], size=4000, p=[0.05, 0.9, 0.05])
        reference, candidate = (change < 0).astype(float), (change > 0).astype(float)
        slices = {"size": tuple(str(at % 20) for at in range(4000))}
        accused += bool(
            damages({"a.b": Outcomes(tuple(map(str, range(4000))), reference, candidate, slices=slices)}).slices
        )
    assert accused <= 17  # the exact rate is below 5 %; more than 17 of 200 at 5 % is one chance in a hundred
