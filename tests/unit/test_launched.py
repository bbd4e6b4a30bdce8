"""What launchers say of their processes."""

import pytest

from compress.core import launched


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    for name in (*launched.RANKS, *launched.SIZES, "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_by_itself():
    assert (launched.rank(), launched.count(), launched.only_one_came()) == (0, 1, False)


@pytest.mark.parametrize(("rank", "size"), zip(launched.RANKS, launched.SIZES, strict=True))
def test_a_follower(monkeypatch, rank, size):
    monkeypatch.setenv(rank, "2")
    monkeypatch.setenv(size, "4")
    assert (launched.rank(), launched.count()) == (2, 4)


def test_accelerate_starts_one_where_several_were_asked_for(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert not launched.only_one_came()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert launched.only_one_came()
    monkeypatch.setenv("RANK", "0")
    assert not launched.only_one_came()
