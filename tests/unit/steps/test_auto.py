"""Splitting a budget: the arithmetic against brute force, and a search whose losses are known beforehand."""

from itertools import product

import numpy as np
import pytest
import tiny_towers
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from pydantic import ValidationError

from compress.core.errors import UsageError
from compress.models import cost
from compress.steps._kept import kept, thinned
from compress.steps.prune import _levers, auto, mlp
from compress.steps.prune._allocation import LONGEST, Option, monotone, ranked
from compress.steps.prune._levers import Setting
from compress.steps.step import Context

shares = st.integers(13, 64).map(lambda part: part / 64)  # sums and products of them are exact
losses = st.integers(0, 3 * 64).map(lambda part: part / 64)


def feeds(kind):
    return tiny_towers.feeds(kind, 12)


@given(st.lists(st.tuples(shares, losses), min_size=6, max_size=6), st.floats(0.1, 1), st.booleans())
def test_the_first_split_is_the_best_of_all(values, budget, each):
    keys = [(tower, method) for tower in ("vision", "text") for method in ("mlp", "vo", "qk")]
    options = [Option(Setting(*key, 0.5), *value) for key, value in zip(keys, values, strict=True)]
    costs = {"vision": 3.0, "text": 1.0}
    best = None
    for taken in product((False, True), repeat=len(options)):
        left = dict.fromkeys(costs, 1.0)
        for option, take in zip(options, taken, strict=True):
            left[option.tower] *= option.share if take else 1
        held = max(left.values()) if each else (3 * left["vision"] + left["text"]) / 4
        if held <= budget:
            total = sum(option.loss for option, take in zip(options, taken, strict=True) if take)
            best = total if best is None else min(best, total)
    found = ranked(options, costs, budget, each)
    assert (not found) == (best is None)
    if best is not None:
        assert found[0].loss == pytest.approx(best)
        assert all(choice.share <= budget or each for choice in found)
        assert all(max(choice.shares.values()) <= budget for choice in found if each)


@given(
    st.lists(st.tuples(st.integers(45, 64).map(lambda part: part / 64), losses), min_size=6, max_size=6),
    st.floats(0.1, 1),
)
def test_layers_of_a_tower_lose_side_by_side(values, budget):
    """Three layers at two levels each: parts that go add up, and a layer is at one level only."""
    keys = [(layer, level) for layer in range(3) for level in (0.25, 0.5)]
    options = [
        Option(Setting("text", "mlp", level, layer), *value) for (layer, level), value in zip(keys, values, strict=True)
    ]
    best = None
    for taken in product((None, 0, 1), repeat=3):
        chosen = [options[2 * layer + which] for layer, which in enumerate(taken) if which is not None]
        if 1 - sum(1 - each.share for each in chosen) <= budget:
            total = sum(each.loss for each in chosen)
            best = total if best is None else min(best, total)
    found = ranked(options, {"text": 5.0}, budget, False)
    assert (not found) == (best is None)
    if best is not None:
        assert found[0].loss == pytest.approx(best)
        layers = [option.setting.layer for option in found[0].options]
        assert len(set(layers)) == len(layers)


def test_many_layers_are_put_together_in_small_steps():
    """Forty layers at four levels: more combinations than can be listed; what is found is near the best line."""
    options = [
        Option(Setting("text", "mlp", level, layer), 1 - level / 40, level**2 * (1 + layer / 40))
        for layer in range(40)
        for level in (0.25, 0.5, 0.75, 0.9)
    ]
    found = ranked(options, {"text": 1.0}, 0.6, False)
    assert 0 < len(found) <= LONGEST
    # levels that may be any share: sum w l^2 with sum l / 40 = 0.4 is least at l = 16 / w / sum(1 / w)
    weights = np.array([1 + layer / 40 for layer in range(40)])
    assert 16**2 / (1 / weights).sum() <= found[0].loss <= 1.1 * 16**2 / (1 / weights).sum()


def test_a_higher_level_never_loses_less():
    told = [
        Option(Setting("text", "mlp", 0.5), 0.7, 0.1),
        Option(Setting("text", "mlp", 0.25), 0.8, 0.3),
        Option(Setting("text", "qk", 0.5), 0.9, -1),
        Option(Setting("text", "mlp", 0.5, 1), 0.9, 0.2),
    ]
    assert {each.setting[1:]: each.loss for each in monotone(told)} == {
        ("mlp", 0.25, None): 0.3, ("mlp", 0.5, None): 0.3, ("qk", 0.5, None): 0, ("mlp", 0.5, 1): 0.2,
    }  # fmt: skip


def search(budget, encoder, methods=("qk", "mlp"), **context):
    spec = auto.Spec(budget=budget, towers=("text",), methods=methods, levels=(0.5,))
    return auto.apply(encoder, spec, Context(feeds, **context))


def widths(encoder):
    return {site.role: site.shape[1] for site in encoder.towers["text"].sites if site.role in ("mlp.fc1", "attn.qkv")}


@pytest.fixture
def headed(tmp_path):
    return tiny_towers.encoder(tmp_path, heads=4)


def dear_neurons(encoder):
    """Every neuron that goes costs a margin, dims of heads cost nothing."""
    return float(72 - widths(encoder)["mlp.fc1"])


def test_what_loses_nothing_goes(headed):
    before = cost.parameters(headed.towers["text"])
    report = search({"parameters": 0.97}, headed, loss=dear_neurons)
    first = {
        site.role: site.shape for site in headed.towers["text"].sites if site.name in ("/q.product", "/fc1.product")
    }
    assert first == {"attn.qkv": (40, 32), "mlp.fc1": (40, 72)}
    left = cost.parameters(headed.towers["text"]) / before
    assert left < 0.97
    assert report.summary.startswith(f"parameters {left:.3f} of 0.97 allowed: text qk 50 %; gate loss")
    names, *rows = report.table
    assert names == ("tower", "what goes", "parameters left", "gate loss on the development split", "chosen")
    assert ("text", "qk 50 %", f"{left:.3f}", "0", "yes") in rows
    assert [row[0] for row in rows] == ["text", "text", *["together"] * (len(rows) - 2)]
    assert {row.site for row in report.rows} == {"/q.product", "/k.product"}


@pytest.mark.slow
def test_both_go_where_one_is_not_enough_and_twice_the_same(tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        encoder = tiny_towers.encoder(tmp_path / name, heads=4)
        made.append((search({"flops": 0.72}, encoder), encoder))
    (report, encoder), (again, other) = made
    assert report == again
    assert encoder.towers["text"].graph.SerializeToString() == other.towers["text"].graph.SerializeToString()
    assert widths(encoder) == {"attn.qkv": 40, "mlp.fc1": 32}
    assert "1 - cosine on held-out samples" in report.summary


def test_layers_are_pruned_unlike_one_another(tmp_path):
    """Neurons of the first block cost a margin each, those of the second a tenth: they go first, and furthest."""
    encoder = tiny_towers.encoder(tmp_path, heads=4, blocks=2)

    def first_is_dear(made):
        one, two = (72 - site.shape[0] for site in made.towers["text"].sites if site.role == "mlp.fc2")
        return float(one + 0.1 * two)

    spec = auto.Spec(budget={"neurons": 0.62}, towers=("text",), methods=("mlp",), levels=(0.25, 0.5), unit="layer")
    report = auto.apply(encoder, spec, Context(feeds, loss=first_is_dear))
    kept = {site.layer: site.shape[0] for site in encoder.towers["text"].sites if site.role == "mlp.fc2"}
    assert kept == {0: 56, 1: 32}
    assert report.summary.startswith(
        "neurons 0.611 of 0.62 allowed: text mlp 25 % of layer 0, text mlp 50 % of layer 1"
    )


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_layer_by_layer_at_one_level_is_the_whole_tower_at_it(tmp_path, kind):
    """Each layer also makes up for those before it, though each is pruned by a step of its own."""
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(tiny_towers.encoder(tmp_path / name, blocks=3))
    layers = frozenset(range(3))
    settings = [Setting(kind, "mlp", 0.5, layer) for layer in layers]
    _levers.turn(made[0], settings, {kind: layers}, Context(feeds), "alike")
    mlp.apply(made[1], mlp.Spec(towers=(kind,), ratio=0.5, tokens="alike"), Context(feeds))
    weights = [
        {each.name: numpy_helper.to_array(each) for each in encoder.towers[kind].graph.graph.initializer}
        for encoder in made
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, each in weights[0].items():
        np.testing.assert_allclose(each, weights[1][name], rtol=1e-3, atol=1e-4)


def test_splits_are_tried_on_some_of_the_samples_and_fitted_to_all(headed):
    asked = []

    def counted(kind):
        for _ in range(4):
            yield from tiny_towers.feeds(kind, 3)

    def loss(encoder):
        asked.append(encoder)
        return 0.0

    with kept(headed, ("text",), Context(counted)) as prepared:
        every = [len(batch["input_ids"]) for batch in prepared.feeds("text")]
        some = [len(batch["input_ids"]) for batch in thinned(prepared, ("text",), 12).feeds("text")]
    assert 12 <= sum(some) < 24 < sum(every)
    spec = auto.Spec(budget={"neurons": 0.8}, towers=("text",), methods=("mlp",), levels=(0.5,), tried_on=12)
    report = auto.apply(headed, spec, Context(counted, loss=loss))
    assert asked
    assert widths(headed)["mlp.fc1"] == 32
    assert report.rows


def test_cosines_judge_where_they_are_asked_for(headed):
    def never(_):
        raise AssertionError("gates are not what is searched by")

    spec = auto.Spec(budget={"neurons": 0.8}, towers=("text",), methods=("mlp",), levels=(0.25,), loss="cosine")
    assert "1 - cosine on held-out samples" in auto.apply(headed, spec, Context(feeds, loss=never)).summary


@pytest.mark.slow
def test_measured_seconds_decide(headed):
    """On a target where neurons cost nothing, only dims of heads make it faster."""

    def latency(encoder):
        first = encoder.towers["text"].site("/q.product").shape[1]
        return {"text": (40.0, float(first)), "vision": (1.0, 1.0)}

    report = search({"latency": 0.9}, headed, loss=lambda _: 0.5, latency=latency)
    assert "latency 0.800 of 0.9 allowed: text qk 50 %" in report.summary


def test_a_budget_that_cannot_be_kept(headed):
    with pytest.raises(UsageError, match=r"no split of these levels leaves 0\.2 of parameters"):
        search({"parameters": 0.2}, headed, ("qk",), loss=lambda _: 0.0)
    with pytest.raises(UsageError, match="nobody measures latency here"):
        search({"latency": 0.9}, headed)


def test_a_loss_that_is_no_number_is_never_chosen(headed):
    with pytest.raises(UsageError, match="no split of these levels"):
        search({"parameters": 0.97}, headed, ("qk",), loss=lambda _: float("nan"))
    assert widths(headed) == {"attn.qkv": 40, "mlp.fc1": 72}


def test_what_a_tower_does_not_allow_is_told(tiny_encoder):
    """One head cannot go, and calibration that is not finite is no finding but an error."""
    spec = auto.Spec(budget={"parameters": 0.97}, towers=("text",), methods=("heads", "qk"), levels=(0.5,))
    report = auto.apply(tiny_encoder, spec, Context(feeds, loss=lambda _: 0.0))
    assert report.table[-1] == ("text", "heads 50 %", "", "no head goes: the count that stays is that of all", "")

    def broken(kind):
        for batch in tiny_towers.feeds(kind, 2):
            yield {"pixel_values": batch["pixel_values"] * np.nan}

    spec = auto.Spec(budget={"parameters": 0.97}, towers=("vision",), methods=("qk",), levels=(0.5,))
    with pytest.raises(UsageError, match="NaN or infinity"):
        auto.apply(tiny_encoder, spec, Context(broken, loss=lambda _: 0.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"budget": {}}, {"budget": {"parameters": 1}}, {"budget": {"parameters": 0}}, {"budget": {"latency": 1.5}},
        {"budget": {"parameters": 0.5, "flops": 0.5}}, {"budget": {"bytes": 0.5}}, {}, {"levels": (0.5, 0.5)},
        {"budget": {"flops": 0.5}, "levels": (1.0,)}, {"budget": {"flops": 0.5}, "methods": ()},
        {"budget": {"flops": float("nan")}}, {"budget": {"flops": 0.5}, "methods": ("gptq",)},
    ],
    ids=str,
)  # fmt: skip
def test_budgets_that_say_nothing(bad):
    with pytest.raises(ValidationError):
        auto.Spec(**bad)


def test_every_number_of_blocks_is_tried_once(tmp_path):
    """At the lowest level that takes so many; one that takes none, or more than may go, is no trial."""
    encoder = tiny_towers.encoder(tmp_path, blocks=4)
    free = {"vision": frozenset(range(4)), "text": frozenset({2, 3})}
    found = _levers.settings(encoder, ("depth",), tuple(eighth / 8 for eighth in range(1, 8)), free, True)
    levels = [(each.tower, each.level) for each in found]
    assert levels == [("vision", 0.25), ("vision", 0.375), ("vision", 0.75), ("text", 0.25), ("text", 0.375)]
    assert {each.layer for each in found} == {None}


def test_rows_of_a_site_become_one():
    from compress.steps.prune._levers import _merged
    from compress.steps.step import SiteReport

    first = SiteReport("text", "/fc2", "mlp.fc2", "takes over", 80, 80, 0.4)
    (made,) = _merged([first, SiteReport("text", "/fc2", "mlp.fc2", "5 of 9 inputs", 80, 40, 0.2, "1-4")])
    assert made == SiteReport("text", "/fc2", "mlp.fc2", "takes over; then 5 of 9 inputs", 80, 40, 0.4, "1-4")
    assert np.isfinite(made.error)
