"""Removing blocks: the surgery by hand, what takes over, which block goes, and what is refused."""

import numpy as np
import pytest
import tiny_towers
from pydantic import ValidationError

from compress.core.errors import UsageError
from compress.models.branches import bypass, neighbour, units
from compress.models.junctions import junction
from compress.models.surgery import linear, replace
from compress.steps._outputs import distance
from compress.steps.prune import depth, mlp
from compress.steps.step import Context
from compress.targets.graph.session import open_session


@pytest.fixture
def deep(tmp_path):
    """An encoder of three blocks a tower."""
    return tiny_towers.encoder(tmp_path, heads=4, blocks=3)


def feeds(kind):
    return tiny_towers.feeds(kind, 12)


def site(tower, name):
    return tower.site(f"/{name}.product")


def embedded(tower, kind):
    (feed,) = tiny_towers.feeds(kind, 1)
    return open_session(tower.graph).run(None, feed)[0]


def constant(tower, before, seed=0):
    """Let a block add the same to every token, whatever it reads."""
    rng = np.random.default_rng(seed)
    for name in ("out", "fc2"):
        weight, bias = linear(tower, site(tower, before + name))
        replace(tower, site(tower, before + name), 0 * weight, rng.normal(size=len(bias)))


def removed(report):
    return {row.site for row in report.rows if row.removed}


def test_units_in_the_order_of_the_stream(deep):
    tower = deep.towers["text"]
    assert [unit.name for unit in units(tower, apart=False)] == ["block 0", "block 1", "block 2"]
    apart = units(tower, apart=True)
    assert [unit.name for unit in apart[:3]] == ["attention of block 0", "MLP of block 0", "attention of block 1"]
    assert [each.name for each in apart[3].sites] == ["/b1.fc1.product", "/b1.fc2.product"]


def test_the_stream_passes_by_where_a_block_was(deep):
    """A block that adds nothing may go, and nothing changes; the value behind it keeps its name."""
    tower = deep.towers["vision"]
    for name in ("b1.out", "b1.fc2"):
        weight, bias = linear(tower, site(tower, name))
        replace(tower, site(tower, name), 0 * weight, 0 * bias)
    before = embedded(tower, "vision")
    assert bypass(tower, units(tower, apart=False)[1]) == "b1.after_mlp"
    assert embedded(tower, "vision") == pytest.approx(before, abs=1e-6)
    assert {each.layer for each in tower.sites} == {None, 0, 2}
    assert junction(tower, site(tower, "fc2")).joined == "b1.after_mlp"
    assert not any(node.name.startswith("/b1.") for node in tower.graph.graph.node)


def test_who_takes_over(deep):
    tower = deep.towers["text"]
    assert neighbour(tower, "b1.after_mlp", ()).name == "/b1.fc2.product"
    assert neighbour(tower, "b1.after_mlp", ["/b1.fc2.product"]).name == "/b2.fc2.product"
    value = bypass(tower, units(tower, apart=False)[0])
    assert neighbour(tower, value, ()).name == "/b1.fc2.product", "there is none before the first block"
    assert neighbour(tower, "b2.after_mlp", ["/b2.fc2.product"]) is None


def test_what_is_the_same_for_every_token_is_taken_over_exactly(deep):
    tower = deep.towers["text"]
    constant(tower, "b1.")
    before = embedded(tower, "text")
    report = depth.apply(deep, depth.Spec(blocks=1, towers=("text",)), Context(feeds))
    assert removed(report) == {f"/b1.{name}.product" for name in ("q", "k", "v", "out", "fc1", "fc2")}
    assert [row.site for row in report.rows if not row.removed] == ["/fc2.product"]
    assert embedded(tower, "text") == pytest.approx(before, abs=1e-4)
    assert max(row.error for row in report.rows if row.removed) < 1e-3
    assert {each.layer for each in tower.sites} == {None, 0, 2}
    mlp.apply(deep, mlp.Spec(ratio=0.5, towers=("text",)), Context(feeds))  # and it can be pruned again
    assert np.isfinite(embedded(tower, "text")).all()


@pytest.mark.slow
def test_without_compensation_the_rest_is_as_it_was(deep):
    tower = deep.towers["text"]
    before = {each.name: linear(tower, each) for each in tower.sites if each.op == "MatMul"}
    depth.apply(deep, depth.Spec(blocks=1, towers=("text",), compensate="none", include=("mlp.fc2@0",)), Context(feeds))
    assert {each.layer for each in tower.sites} == {None, 1, 2}
    for each in tower.sites:
        if each.op == "MatMul":
            assert all(map(np.array_equal, linear(tower, each), before[each.name]))


@pytest.mark.slow
def test_what_is_excluded_stays_and_takes_nothing_over(deep):
    tower = deep.towers["text"]
    before = linear(tower, site(tower, "fc2"))
    spec = depth.Spec(blocks=1, towers=("text",), exclude=("text:mlp.fc2@0", "text:mlp.fc2@2"))
    report = depth.apply(deep, spec, Context(feeds))
    assert {each.layer for each in tower.sites} == {None, 0, 2}
    assert all(map(np.array_equal, linear(tower, site(tower, "fc2")), before))
    assert all(row.removed for row in report.rows)


@pytest.mark.slow
def test_an_mlp_alone_is_taken_over_by_the_attention_before_it(deep):
    tower = deep.towers["text"]
    weight, bias = linear(tower, site(tower, "b1.fc2"))
    replace(tower, site(tower, "b1.fc2"), 0 * weight, bias)
    before = embedded(tower, "text")
    report = depth.apply(deep, depth.Spec(blocks=1, towers=("text",), unit="branch"), Context(feeds))
    assert removed(report) == {"/b1.fc1.product", "/b1.fc2.product"}
    assert [row.site for row in report.rows if not row.removed] == ["/b1.out.product"]
    assert embedded(tower, "text") == pytest.approx(before, abs=1e-4)


@pytest.mark.slow
def test_few_samples_fit_the_bias(deep):
    one = Context(lambda kind: tiny_towers.feeds(kind, 1))
    report = depth.apply(deep, depth.Spec(blocks=1, towers=("text",)), one)
    assert "21 rows of calibration are too few" in report.rows[-1].treatment


@pytest.mark.parametrize(
    "bad", [{"ratio": 0}, {"ratio": 1}, {"ratio": 1.5}, {"blocks": 0}, {}, {"ratio": 0.5, "blocks": 1}], ids=str
)
def test_what_goes_has_to_be_said_once(bad):
    with pytest.raises(ValidationError):
        depth.Spec(**bad)


def test_one_block_stays(deep, tiny_encoder):
    for encoder, count in ((deep, 3), (deep, 7), (tiny_encoder, 1)):
        with pytest.raises(UsageError, match="one stays at least"):
            depth.apply(encoder, depth.Spec(blocks=count, towers=("text",)), Context(feeds))
    with pytest.raises(UsageError, match="and 1 of 3 may"):
        depth.apply(deep, depth.Spec(blocks=2, towers=("text",), include=("mlp.fc2@1",)), Context(feeds))
    with pytest.raises(UsageError, match="no block goes"):
        depth.apply(deep, depth.Spec(ratio=0.1, towers=("text",)), Context(feeds))
    with pytest.raises(UsageError, match="needs calibration data"):
        depth.apply(deep, depth.Spec(blocks=1), Context())


def test_values_that_are_not_finite(deep):
    tower = deep.towers["text"]
    weight, bias = linear(tower, site(tower, "b1.fc1"))
    replace(tower, site(tower, "b1.fc1"), weight * np.nan, bias)
    with pytest.raises(UsageError, match="NaN or infinity"):
        depth.apply(deep, depth.Spec(blocks=1, towers=("text",)), Context(feeds))
    assert {each.layer for each in tower.sites} == {None, 0, 1, 2}, "nothing is lost"


def test_distance_by_hand():
    before = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    assert distance(before, before) == 0
    assert distance(before, np.zeros((2, 2), np.float32)) == 1
    assert distance(before, -before) == 2
    with pytest.raises(UsageError, match="same output"):
        distance(np.ones((2, 2), np.float32), before)
