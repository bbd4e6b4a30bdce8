"""Which of a larger model's weights a student gets: blocks evenly spaced, equal shapes, nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.models.inherited import inherited, spread


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [(1, 4, (3,)), (2, 4, (1, 3)), (3, 6, (1, 3, 5)), (3, 12, (3, 7, 11)), (4, 4, (0, 1, 2, 3)), (2, 3, (1, 2))],
)
def test_places_by_hand(own, other, expected):
    assert spread(own, other) == expected


@given(st.integers(1, 48), st.integers(0, 48))
def test_places_are_different_in_order_and_end_with_the_last(own, more):
    found = spread(own, own + more)
    assert list(found) == sorted(set(found))
    assert len(found) == own
    assert found[-1] == own + more - 1
    assert found[0] >= 0


BASE = {
    "table.weight": np.full((5, 3), -1.0),
    **{f"layers.{at}.fc.weight": np.full((4, 3), float(at)) for at in range(4)},
    **{f"layers.{at}.1.bias": np.full(4, 10.0 + at) for at in range(4)},
}


def shapes(layers, width=3, rows=5):
    made = {"table.weight": (rows, width)}
    for at in range(layers):
        made |= {f"layers.{at}.fc.weight": (4, width), f"layers.{at}.1.bias": (4,)}
    return made


def test_blocks_come_from_those_they_stand_for():
    found = inherited(shapes(2), BASE, (2, 4))
    assert set(found) == set(shapes(2))
    assert [float(found[f"layers.{at}.fc.weight"][0, 0]) for at in range(2)] == [1.0, 3.0]
    assert [float(found[f"layers.{at}.1.bias"][0]) for at in range(2)] == [11.0, 13.0]


def test_other_shapes_are_left_out_and_the_bias_of_such_a_layer_too():
    assert set(inherited(shapes(2, width=2), BASE, (2, 4))) == {"layers.0.1.bias", "layers.1.1.bias"}
    biased = {**shapes(1, width=2), "layers.0.fc.bias": (4,)}
    assert set(inherited(biased, {**BASE, "layers.3.fc.bias": np.ones(4)}, (1, 4))) == {"layers.0.1.bias"}
    assert set(inherited(shapes(1, rows=6), BASE, (1, 4))) == set(shapes(1)) - {"table.weight"}


def test_a_deeper_one_gets_no_blocks():
    assert set(inherited(shapes(5), BASE, (5, 4))) == {"table.weight"}


def test_where_there_are_no_layers_to_count_names_are_names():
    assert set(inherited(shapes(2), BASE, None)) == set(shapes(2))
    assert float(inherited(shapes(2), BASE, None)["layers.1.fc.weight"][0, 0]) == 1.0
