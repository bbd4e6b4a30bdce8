"""Ranking maths against hand calculation: ties, NaN, zero vectors, order of the gallery."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.core.errors import CompressError
from compress.evals import ranking

EYE = np.eye(3, dtype=bool)
SCORES = np.array([[0.9, 0.8, 0.1], [0.5, 0.4, 0.3], [0.2, 0.7, 0.7]])
NAN = float("nan")


def test_unit_keeps_zero_and_spreads_nan():
    rows = ranking.unit(np.array([[3, 4], [0, 0], [1, NAN], [np.inf, 1]], np.float32))
    np.testing.assert_array_equal(rows[:2], [[0.6, 0.8], [0, 0]])
    assert np.isnan(rows[2:]).all()


@pytest.mark.parametrize(
    ("k", "rows", "columns"),
    [(1, [1, 0, 0], [1, 0, 1]), (2, [1, 1, 1], [1, 0, 1]), (3, [1, 1, 1], [1, 1, 1])],
)
def test_recall_on_a_matrix_ranked_by_hand(k, rows, columns):
    # Rows: 0.9 is first; 0.4 is second behind 0.5; 0.7 ties with 0.7 and so is second.
    # Columns: 0.9 first; 0.4 third behind 0.8 and 0.7; 0.7 first.
    assert ranking.hits(SCORES, EYE, k).tolist() == rows
    assert ranking.hits(SCORES.T, EYE, k).tolist() == columns


def test_recall_takes_the_best_of_several_true_answers():
    positive = np.array([[True, False, True]])
    assert ranking.hits(np.array([[0.1, 0.5, 0.6]]), positive, 1) == 1
    assert ranking.hits(np.array([[NAN, 0.5, 0.6]]), positive, 1) == 1
    assert ranking.hits(np.array([[0.1, 0.5, NAN]]), positive, 1) == 0


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ([0.9, 0.8], 1), ([0.8, 0.8], 0), ([0.8, 0.8 - 1e-9], 0), ([0.8, 0.9], 0),
        ([NAN, 0.1], 0), ([0.9, NAN], 0), ([np.inf, 0.1], 0), ([0.9, -np.inf], 1), ([0.0, 0.0], 0),
    ],
)  # fmt: skip
def test_only_a_clear_finite_lead_is_right(row, right):
    assert ranking.strictly_best(np.array([row]), np.array([0])) == right
    assert ranking.hits(np.array([row]), np.array([[True, False]]), 1) == right


def test_candidates_may_differ_in_number():
    images, texts = np.eye(2), np.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    candidates = np.array([[0, 1, 2], [2, 0, -1]])
    assert ranking.true_candidate(images, texts, candidates).tolist() == [1, 1]
    assert ranking.true_candidate(images, texts, candidates[:, ::-1] % 3).tolist() == [0, 0]


def test_cosines_of_what_is_no_vector():
    old = ranking.unit([[1, 0], [1, 0], [1, 0], [1, 0]])
    new = ranking.unit([[2, 0], [-1, 0], [NAN, 0], [0, 0]])
    assert ranking.cosines(old, new).tolist() == [1, -1, -1, 0]


def test_one_number_is_no_cosine_with_many():
    with pytest.raises(CompressError, match=r"\(2, 4\) and \(2, 1\)"):  # spread over four it would give 1
        ranking.cosines(ranking.unit(np.ones((2, 4))), ranking.unit(np.ones((2, 1))))


def _on_a_line(*angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_neighbours_by_hand():
    old, new = _on_a_line(0, 0.1, 0.3, 1.0, 1.5), _on_a_line(0, 0.9, 0.1, 1.0, 1.5)
    # nearest two before: 0: 1 2 | 1: 0 2 | 2: 1 0 | 3: 4 2 | 4: 3 2; after: 0: 2 1 | 1: 3 4 | 2: 0 1 | 3: 1 4 | 4: 3 1
    assert ranking.neighbour_overlap(old, new, 2).tolist() == [1, 0, 1, 0.5, 0.5]
    assert ranking.neighbour_overlap(old, old, 2).tolist() == [1] * 5


def test_copies_have_no_clear_neighbours():
    old = _on_a_line(0, 0, 0, 0, 1.0)
    assert np.isnan(ranking.neighbour_overlap(old, old, 2)[:4]).all()
    assert ranking.neighbour_overlap(_on_a_line(0, 0.1, 0.3, 1.0), np.ones((4, 2)), 2).tolist() == [0] * 4


def test_flips():
    before = np.array([[0.9, 0.1, 0.9], [0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [0.9, 0.1, 0.2]])
    after = np.array([[0.5, 0.1, 0.4], [0.5, 0.5, 0.2], [0.1, 0.5, 0.2], [NAN] * 3, [0.9, 0.1, NAN]])
    assert ranking.flips(before, after).tolist() == [False, True, True, True, True]
    assert not ranking.flips(before, before).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["random", "constant", "some nan", "zero"]))
def test_gallery_order_changes_nothing(seed, kind):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(24, 7)).astype(np.float32)
    if kind == "constant":
        raw[:] = raw[0]
    elif kind == "some nan":
        raw[rng.integers(24, size=2)] = np.nan
    elif kind == "zero":
        raw[:] = 0
    queries, gallery, order = ranking.unit(rng.normal(size=(24, 7))), ranking.unit(raw), rng.permutation(24)
    positive = np.eye(24, dtype=bool)
    for k in (1, 5):
        plain = ranking.hits(ranking.similarities(queries, gallery), positive, k)
        mixed = ranking.hits(ranking.similarities(queries, gallery[order]), positive[:, order], k)
        np.testing.assert_array_equal(plain, mixed)
    plain = ranking.neighbour_overlap(queries, gallery, 5)
    np.testing.assert_array_equal(plain[order], ranking.neighbour_overlap(queries[order], gallery[order], 5))
    if kind in ("constant", "zero"):
        assert not plain.any()
