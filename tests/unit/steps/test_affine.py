"""8-bit inputs with a zero point: counts of both signs, and the chosen range against rounding every value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.steps.quantize import _affine
from compress.steps.quantize._affine import Affine
from compress.steps.quantize._ranges import Ranges, lost
from compress.steps.quantize._signed import Signed


def seen(*batches):
    made = Signed()
    for batch in batches:
        made.add(np.asarray(batch, np.float32))
    return made


def gelu(values):
    return 0.5 * values * (1 + np.tanh(0.7978845608 * (values + 0.044715 * values**3)))


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), max_size=20), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_both_signs_are_counted_and_come_back(batches):
    made = seen(*batches)
    values = np.concatenate([np.asarray(batch, np.float32) for batch in batches])
    assert made.negative.sum() == (values < 0).sum()
    assert (made.negative <= made.counts).all()
    assert (made.lowest, made.highest) == (min(values.min(initial=0), 0), max(values.max(initial=0), 0))
    again = Signed.restored(made.state())
    for ours, theirs in zip(again.values(), made.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (again.lowest, again.highest, again.top) == (made.lowest, made.highest, made.top)


def test_growing_merges_both_counts():
    made = seen([-0.4, 0.6, 1.0], [-3.0])
    places, counts = made.values()
    np.testing.assert_allclose(places, [-3, -0.4, 0.6, 1], atol=4 / 4096)
    assert counts.tolist() == [1, 1, 1, 1]


def test_ranges_come_back_with_their_signs():
    made = Ranges()
    made.add(np.array([[-1.0, 2.0], [0.5, -4.0]], np.float32))
    again = Ranges.restored(made.state())
    assert again.channels.tolist() == [1, 4]
    np.testing.assert_allclose(again.shares, [1 / 5 + 0.25 / 16.25, 4 / 5 + 16 / 16.25])
    assert (again.rows, again.logarithms) == (2, pytest.approx(np.log(5) + np.log(16.25)))
    assert again.histogram.lowest == -4


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [(-1.0, 1.55, 0.01, 100), (0.0, 2.55, 0.01, 0), (-2.55, 0.0, 0.01, 255), (-0.17, 5.0, 5.17 / 255, 8)],
)
def test_scale_and_zero_point_by_hand(low, high, scale, zero):
    made = Affine.within(low, high)
    assert made.scale == pytest.approx(scale)
    assert made.zero_point == zero
    assert made.rounded(np.zeros(1)).tolist() == [0.0]


def test_values_are_rounded_and_cut_off_by_hand():
    held = Affine(0.5, 10)  # from -5 to 122.5
    assert held.rounded(np.array([0.6, -0.3, -9.0, 200.0])).tolist() == [0.5, -0.5, -5.0, 122.5]
    assert Affine.around(12.7) == Affine(pytest.approx(0.1), 128)


DRAWS = {
    "gelu": lambda rng: gelu(rng.normal(size=6000) * 1.5),
    "outlier": lambda rng: np.concatenate([rng.normal(size=6000), np.full(40, 28.0)]),
    "tails": lambda rng: rng.standard_t(2.5, size=6000),
    "below": lambda rng: -np.abs(rng.normal(size=6000)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_least_error_against_rounding_every_value(name):
    """In truth it costs hardly more than the best of many ranges, and never more than symmetric steps."""
    values = DRAWS[name](np.random.default_rng(0)).astype(np.float32).astype(np.float64)
    made = seen(values[:3000], values[3000:])

    def cost(held):
        return np.square(held.rounded(values) - values).mean()

    lows, highs = (np.append(np.linspace(end / 60, end, 60), 0.0) for end in (values.min(), values.max()))
    best = min(cost(Affine.within(min(low, 0.0), max(high, 0.0))) for low in lows for high in highs if low < high)
    chosen = _affine.least_error(made)
    assert cost(chosen) < 1.05 * best
    assert cost(chosen) <= 1.01 * cost(Affine.around(made.least_error()))
    assert chosen.error(*made.values()) / len(values) == pytest.approx(cost(chosen), rel=0.05)


def test_a_gelu_gets_nearly_all_codes_for_what_is_above_zero():
    """Symmetric steps spend half of the codes below zero, where nothing is less than -0.17: four times the error."""
    values = gelu(np.random.default_rng(1).normal(size=20000) * 2)
    made = seen(values)
    chosen = _affine.least_error(made)
    assert chosen.zero_point < 16
    assert chosen.error(*made.values()) < Affine.around(made.least_error()).error(*made.values()) / 3


def test_the_percentile_cuts_both_sides():
    values = np.concatenate([np.linspace(-1, 1, 999), [50.0]])
    held = _affine.percentile(seen(values), 99.9)
    low, high = -held.zero_point * held.scale, (255 - held.zero_point) * held.scale
    assert (low, high) == (pytest.approx(-1, abs=0.03), pytest.approx(1, abs=0.03))
    assert _affine.percentile(seen(np.abs(values)), 99.9).zero_point == 0


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1e-12]])
def test_silent_inputs_have_a_scale(values):
    for held in (_affine.least_error(seen(values)), _affine.percentile(seen(values), 99)):
        assert held.scale > 0
        assert held.error(*seen(values).values()) <= 1e-18


def loses(inputs, weight):
    """The estimate, the median over rows of what is lost in truth, and the share of all inputs' power."""
    made = Ranges()
    for batch in np.split(inputs.astype(np.float32), 4):
        made.add(batch)
    held = _affine.least_error(made.histogram)
    error, said = held.rounded(inputs) - inputs, inputs @ weight.T
    truth = np.median(np.square(error @ weight.T).sum(1) / np.square(said).sum(1))
    estimate = lost(made, held, weight.astype(np.float32))
    assert lost(Ranges.restored(made.state()), held, weight.astype(np.float32)) == estimate
    return estimate, truth, np.square(error).sum() / np.square(inputs).sum()


def test_a_loud_channel_that_the_weight_hardly_reads_does_not_hide_the_others():
    rng = np.random.default_rng(4)
    inputs, weight = rng.normal(size=(4000, 64)), rng.normal(size=(16, 64))
    estimate, truth, _ = loses(inputs, weight)
    assert estimate == pytest.approx(truth, rel=0.2)
    inputs[:, 5] += 60
    weight[:, 5] /= 60
    estimate, truth, share = loses(inputs, weight)
    assert estimate == pytest.approx(truth, rel=0.4)
    assert share < truth / 20


def test_a_loud_row_does_not_hide_the_others():
    rng = np.random.default_rng(5)
    inputs, weight = rng.normal(size=(4000, 64)), rng.normal(size=(16, 64))
    inputs[::16] *= 30
    estimate, truth, share = loses(inputs, weight)
    assert truth / 2 < estimate < 2 * truth
    assert share < truth / 20


def test_a_product_of_nothing_loses_nothing():
    made = Ranges()
    made.add(np.zeros((3, 4), np.float32))
    assert lost(made, Affine(1.0, 128), np.ones((2, 4), np.float32)) == 0
