"""The vector database and exact arithmetic find the same; recall out of neighbours is recall out of everything."""

import numpy as np
import pytest

from compress.core.errors import CompressError
from compress.evals import index, ranking

needs_database = pytest.mark.skipif(
    index.name() == index.EXACT, reason="needs the extra [index]: pymilvus and milvus-lite are not installed"
)


def rows(count, seed, width=24):
    return ranking.unit(np.random.default_rng(seed).normal(size=(count, width)))


def one_each(count):
    return np.eye(count, dtype=bool)


def noisy(gallery, seed, by=0.2):
    return ranking.unit(gallery + by * np.random.default_rng(seed).normal(size=gallery.shape))


def recall(gallery, queries, positive, k, which=index.EXACT):
    ((ids,),) = index.neighbours([gallery], [queries], index.reach(positive, k), which)
    return index.recall(gallery, queries, ids, positive, k)


GALLERIES = {
    "random": rows(60, 0),
    "two of everything": np.repeat(rows(30, 0), 2, axis=0),
    "constant": np.repeat(rows(1, 0), 60, axis=0),
    "zeros": np.zeros((60, 24)),
    "half zeros": np.where(np.arange(60)[:, None] % 2, rows(60, 0), 0.0),
}


@pytest.mark.parametrize("gallery", GALLERIES)
@pytest.mark.parametrize("k", [1, 10])
def test_recall_from_neighbours_is_recall_from_everything(gallery, k):
    held = GALLERIES[gallery]
    rng = np.random.default_rng(2)
    several = rng.random((60, 60)) < 0.05
    several[:, 7] |= ~several.any(axis=1)
    for positive in (one_each(60), several):
        queries = noisy(rows(60, 0), 1)
        expected = ranking.hits(ranking.similarities(queries, held), positive, k)
        np.testing.assert_array_equal(recall(held, queries, positive, k), expected)


def test_by_hand():
    """Four directions, the first two rows the same: the query at row 3 finds it, the one at row 0 ties with row 1."""
    gallery = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    queries = np.array([[1.0, 0], [0.6, 0.8], [0, 1], [-0.8, 0.6]])
    assert recall(gallery, queries, one_each(4), 1).tolist() == [0, 0, 1, 1]
    assert recall(gallery, queries, one_each(4), 2).tolist() == [1, 0, 1, 1]  # row 1 is third: 0.8, 0.6, 0.6
    assert recall(gallery, queries, one_each(4), 3).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_vector_is_never_found(bad):
    gallery, queries = rows(20, 0), rows(20, 0)
    queries[3] = bad
    right = recall(gallery, queries, one_each(20), 1)
    assert right.tolist() == [1, 1, 1, 0] + [1] * 16
    gallery[5, 2] = bad
    assert not recall(gallery, rows(20, 0), one_each(20), 10).any()  # a database refuses such a row


def test_fewer_items_than_neighbours_asked_for():
    assert recall(rows(3, 0), rows(3, 0), one_each(3), 10).all()


@needs_database
def test_the_database_and_arithmetic_agree():
    """Several galleries and query sets at once; ids where no two are equally near, recall whatever is."""
    galleries = [GALLERIES["random"], GALLERIES["two of everything"], GALLERIES["constant"], GALLERIES["half zeros"]]
    queries = [noisy(rows(60, 0), 1), rows(60, 0), np.zeros((5, 24))]
    ours, theirs = (index.neighbours(galleries, queries, 11, which) for which in (index.EXACT, "milvus"))
    np.testing.assert_array_equal(ours[0][0], theirs[0][0])
    np.testing.assert_array_equal(ours[0][1], theirs[0][1])
    for gallery, mine, found in zip(galleries, ours, theirs, strict=True):
        for k in (1, 10):
            for asked, ids, other in zip(queries[:2], mine, found, strict=False):
                old, new = (index.recall(gallery, asked, each, one_each(60), k) for each in (ids, other))
                np.testing.assert_array_equal(old, new)
    assert {len(set(row)) for row in theirs[2][0].tolist()} == {11}  # among equals any eleven, none twice


@needs_database
def test_a_database_that_dies_is_not_replaced_by_arithmetic(monkeypatch):
    monkeypatch.setattr(index, "WORKER", "compress.evals.no_such_worker")
    with pytest.raises(CompressError, match="child process"):
        index.neighbours([rows(4, 0)], [rows(4, 1)], 2)


def test_without_the_extra_it_is_exact(monkeypatch):
    monkeypatch.setattr(index, "DATABASE", ("pymilvus", "no-such-package"))
    assert index.name() == index.EXACT
    monkeypatch.setattr(index, "WORKER", "compress.evals.no_such_worker")
    ((found,),) = index.neighbours([rows(9, 0)], [rows(9, 0)], 2)
    assert found[:, 0].tolist() == list(range(9))
