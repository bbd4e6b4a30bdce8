"""Maps into a teacher's space: by hand, against scipy, folded in before the norm, and what cannot be mapped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from compress.core.errors import UsageError
from compress.steps.distill._space import GRID, cosines, fitted, linear, procrustes, scaled_procrustes


def drawn(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_a_quarter_turn_by_hand():
    own = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    other = np.array([[0.0, 1.0], [-1.0, 0.0], [-1.0, 1.0]])  # each turned left by 90 degrees
    np.testing.assert_allclose(procrustes(own, other), [[0, 1], [-1, 0]], atol=1e-12)
    np.testing.assert_allclose(scaled_procrustes(own, 3 * other), [[0, 3], [-3, 0]], atol=1e-12)


def test_a_line_by_hand():
    """x -> 2x + error: the slope of least squares is 2.1, of which a small ridge takes next to nothing."""
    own, other = np.array([[1.0], [2.0]]), np.array([[2.5], [4.0]])  # (1 * 2.5 + 2 * 4) / (1 + 4)
    assert linear(np.tile(own, (50, 1)), np.tile(other, (50, 1)))[0, 0] == pytest.approx(2.1, rel=1e-3)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_it_is_the_rotation_that_scipy_finds(width, seed):
    own, other = drawn(20, width, seed), drawn(20, width, seed + 1)
    expected, sizes = orthogonal_procrustes(own, other)
    np.testing.assert_allclose(procrustes(own, other), expected, atol=1e-8)
    np.testing.assert_allclose(scaled_procrustes(own, other), sizes / np.square(own).sum() * expected, atol=1e-8)


@pytest.mark.parametrize(("own", "other"), [(3, 5), (5, 3)])
def test_other_widths_are_those_of_scipy_with_zeros_behind(own, other):
    a, b = drawn(40, own), drawn(40, other, 1)
    width = max(own, other)
    padded = [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in (a, b)]
    made = procrustes(a, b)
    np.testing.assert_allclose(made, orthogonal_procrustes(*padded)[0][:own, :other], atol=1e-8)
    fewer = made @ made.T if own < other else made.T @ made
    np.testing.assert_allclose(fewer, np.eye(min(own, other)), atol=1e-12)


def test_a_narrower_student_keeps_its_own_cosines():
    own = unit(drawn(30, 4))
    mapped = own @ procrustes(own, unit(drawn(30, 9, 1)))
    np.testing.assert_allclose(mapped @ mapped.T, own @ own.T, atol=1e-12)


def test_the_ridge_is_the_best_by_the_hat_matrix():
    """Generalised cross-validation as its definition has it, with the hat matrix written out."""
    own = drawn(30, 12)
    other = own @ drawn(12, 4, 1) + 2 * drawn(30, 4, 2)
    mean = np.square(own).sum() / 12
    scores = {}
    for share in GRID:
        hat = own @ np.linalg.solve(own.T @ own + share * mean * np.eye(12), own.T)
        scores[share] = np.square(other - hat @ other).mean() / (1 - np.trace(hat) / 30) ** 2
    best = min(scores, key=scores.get)
    assert GRID[0] < best < GRID[-1]
    expected = np.linalg.solve(own.T @ own + best * mean * np.eye(12), own.T @ other)
    np.testing.assert_allclose(linear(own, other), expected, rtol=1e-8)


def test_fewer_samples_than_numbers_still_give_a_map():
    own, other = drawn(10, 25), drawn(10, 3, 1)
    assert np.isfinite(linear(own, other)).all()


@pytest.mark.parametrize("how", ["procrustes", "linear"])
def test_what_is_folded_in_before_the_norm_is_what_is_applied_behind_it(how):
    """A projection P of states, a map M: directions of (states P M) are those of unit(states P) M."""
    states, projection, teacher = drawn(64, 10), drawn(10, 6, 1), unit(drawn(64, 8, 2))
    embedded = states @ projection
    found, _ = fitted(embedded, teacher, how, unit=True)
    np.testing.assert_allclose(unit(states @ (projection @ found)), unit(unit(embedded) @ found), atol=1e-12)


def test_the_cosine_is_that_of_samples_that_were_not_fitted():
    """Noise has no map: on what was fitted 40 numbers explain much, on the rest nothing."""
    own, other = unit(drawn(120, 40)), unit(drawn(120, 40, 1))
    found, cosine = fitted(own, other, "linear", unit=True)
    assert abs(cosine) < 0.2
    turned = np.linalg.qr(drawn(40, 40, 3))[0]
    found, cosine = fitted(own, own @ turned, "procrustes", unit=True)
    np.testing.assert_allclose(found, turned, atol=1e-8)
    assert cosine == pytest.approx(1.0)


def test_lengths_count_where_embeddings_have_some():
    own = drawn(40, 3)
    found, _ = fitted(own, 5 * own, "procrustes", unit=False)
    np.testing.assert_allclose(found, 5 * np.eye(3), atol=1e-8)
    found, _ = fitted(own, 5 * own, "procrustes", unit=True)
    np.testing.assert_allclose(found, np.eye(3), atol=1e-8)


@pytest.mark.parametrize("how", ["procrustes", "linear"])
@pytest.mark.parametrize(("spoil", "match"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.0, "zero")])
def test_embeddings_that_say_nothing(how, spoil, match):
    own, other = drawn(20, 3), drawn(20, 3, 1)
    bad = own.copy()
    bad[4] = spoil
    with pytest.raises(UsageError, match=f"student says {match}"):
        fitted(bad, other, how, unit=True)
    with pytest.raises(UsageError, match=f"teacher says {match}"):
        fitted(other, bad, how, unit=True)
    with pytest.raises(UsageError, match="cannot be fitted on 7 samples"):
        fitted(own[:7], other[:7], how, unit=True)


def test_a_row_without_length_has_no_cosine():
    assert cosines(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [6.0, 8.0]])).tolist() == [0.0, 1.0]
