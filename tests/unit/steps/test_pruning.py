"""The mathematics of pruning: which channels stay, what the rest is fitted to, and the surgery on the graph."""

import numpy as np
import pytest
import tiny_towers
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from compress.core.errors import UsageError
from compress.data import child
from compress.models import surgery
from compress.models.attention import attention
from compress.models.graph import array, initializers
from compress.models.junctions import bias_of, junction, part
from compress.models.surgery import linear, narrow, replace
from compress.steps import _ridge, follower, stream
from compress.steps._moments import JointMoments, Moments
from compress.steps._walk import walk
from compress.steps.prune import _scores, _subspace, heads, mlp, qk, vo
from compress.steps.prune._layers import ranges
from compress.steps.step import Context
from compress.targets.graph.session import open_session

seeds = st.integers(0, 2**32 - 1)


def moments(x, t):
    made = JointMoments()
    made.add(np.asarray(x, np.float32), np.asarray(t, np.float32))
    return made


# which channels stay -------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.floats(0.001, 0.999), st.sampled_from([1, 4, 8, 16, 32, 64]))
def test_what_stays_is_a_multiple_near_the_share(width, ratio, multiple):
    count = _scores.kept_count(width, ratio, multiple)
    assert 1 <= count <= width
    assert count % multiple == 0 or count == width
    if multiple <= (1 - ratio) * width <= width - multiple:
        assert abs(count - (1 - ratio) * width) <= multiple / 2


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.data())
def test_the_choice_is_sorted_unique_and_of_the_right_count(scores, data):
    count = data.draw(st.integers(1, len(scores)))
    keep = _scores.choose(np.array(scores), count)
    assert len(keep) == count
    assert (np.diff(keep) > 0).all()
    gone = np.delete(np.array(scores), keep)
    assert gone.size == 0 or np.array(scores)[keep].min() >= gone.max()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([1, 3]), st.integers(1, 7))
def test_elimination_leaves_sorted_groups(seed, size, count):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 8 * size))
    keep = _scores.eliminated(np.cov(x.T), rng.normal(size=(5, 8 * size)), 8, count)
    assert len(keep) == count
    assert (np.diff(keep) > 0).all()
    assert 0 <= keep[0] <= keep[-1] < 8


def test_elimination_drops_what_the_others_can_make_up_for():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) * [1, 1, 1, 1, 0.3, 0.3]
    x[:, 0] = 3 * (x[:, 1] + x[:, 2])  # any of these three follows from the others, and nothing is lost with it
    weight = np.ones((4, 6))
    assert {3, 4, 5} <= set(_scores.eliminated(np.cov(x.T), weight, 6, 5))
    assert {0, 1, 2, 3} <= set(_scores.choose(_scores.fluctuation(np.cov(x.T), weight), 5))


def test_elimination_loses_least_of_all_choices_of_one():
    """Against trying every channel: refit without it, and measure."""
    rng = np.random.default_rng(3)
    x, weight = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 7)), rng.normal(size=(4, 7))
    target = (x - x.mean(0)) @ weight.T
    losses = []
    for gone in range(7):
        rest = np.delete(x - x.mean(0), gone, 1)
        losses.append(np.square(target - rest @ np.linalg.lstsq(rest, target, rcond=None)[0]).sum())
    keep = _scores.eliminated(np.cov(x.T), weight, 7, 6)
    assert np.setdiff1d(np.arange(7), keep)[0] == np.argmin(losses)


def test_scores_by_hand():
    covariance, weight = np.diag([1.0, 4.0]), np.array([[3.0, 0.0], [4.0, 1.0]])
    assert _scores.variance(covariance).tolist() == [1, 4]
    assert _scores.fluctuation(covariance, weight).tolist() == [25, 4]
    assert _scores.magnitude(weight, np.array([[0.0, 0.0], [0.0, 0.0]])).tolist() == [5, 1]


def test_places_as_text():
    assert ranges([0, 1, 2, 3, 7, 9, 10]) == "0-3, 7, 9-10"
    assert ranges([]) == ""


# what the rest is fitted to ------------------------------------------------------------------------------------------


def test_elimination_of_a_covariance_that_sums_have_made_indefinite():
    """Rows that are all but one direction, summed up in single precision, as weights by the gradient leave them."""
    rng = np.random.default_rng(0)
    x = (1e3 * rng.normal(size=(40, 1)) * rng.normal(size=(1, 300)) + 1e-3 * rng.normal(size=(40, 300))).astype("f4")
    covariance = (x.T @ x).astype(np.float64)
    covariance[0, 1] = covariance[1, 0] = 1.001 * covariance[0, 1]
    assert np.linalg.eigvalsh(covariance)[0] < -_scores.DAMPING * np.diag(covariance).mean()
    before = covariance.copy()
    keep = _scores.eliminated(covariance, rng.normal(size=(5, 300)), 300, 50)
    assert len(keep) == 50
    damped, inverse = before + 1e-2 * np.diag(before).mean() * np.eye(300), _scores._inverse(before)
    assert np.tril(inverse) == pytest.approx(np.tril(np.linalg.inv(damped)), rel=1e-5, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_compensation_is_exact_where_pruned_channels_are_linear_in_kept_ones(seed):
    rng = np.random.default_rng(seed)
    kept = rng.normal(size=(400, 5))
    x = np.concatenate([kept, kept @ rng.normal(size=(5, 3)) + rng.normal(size=3)], 1)
    weight, bias, keep = rng.normal(size=(4, 8)), rng.normal(size=4), np.arange(5)
    target = x @ weight.T + bias
    made = _ridge.fit(moments(x, target).kept(keep), weight[:, keep], 1e-9)
    assert x[:, keep] @ made.weight.T + made.offset == pytest.approx(target, abs=2e-3)


def test_the_fit_is_that_of_a_ridge_regression_of_the_pruned_channels():
    """W_S + W_P B with B from the textbook formula, in place of moments of targets."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))).astype(np.float32).astype(np.float64)
    weight, keep, gone = rng.normal(size=(3, 6)), np.array([0, 2, 5]), np.array([1, 3, 4])
    centered = x - x.mean(0)
    covariance = centered.T @ centered / len(x)
    level = 0.01 * np.diag(covariance)[keep].mean()
    b = covariance[np.ix_(gone, keep)] @ np.linalg.inv(covariance[np.ix_(keep, keep)] + level * np.eye(3))
    made = _ridge.fit(moments(x, x @ weight.T).kept(keep), weight[:, keep], 0.01)
    assert made.weight == pytest.approx(weight[:, keep] + weight[:, gone] @ b, rel=1e-3, abs=1e-4)
    mean = x.mean(0)
    assert made.offset == pytest.approx(weight[:, gone] @ (mean[gone] - b @ mean[keep]), rel=1e-3, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_error_is_that_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    x, target, keep = rng.normal(size=(50, 4)) + 2, rng.normal(size=(50, 3)), np.array([1, 3])
    made = _ridge.Fit(rng.normal(size=(3, 2)), rng.normal(size=3), 0.0)
    left = target - x[:, keep] @ made.weight.T - made.offset
    expected = np.square(left).sum() / np.square(target - target.mean(0)).sum()
    assert _ridge.error(made, moments(x, target).kept(keep)) == pytest.approx(expected, rel=1e-3)


def test_noise_takes_a_strong_ridge_and_structure_a_weak_one():
    rng = np.random.default_rng(0)
    start = np.zeros((2, 20))
    noise = [moments(rng.normal(size=(40, 20)), rng.normal(size=(40, 2))) for _ in range(2)]
    assert _ridge.best_ridge(*noise, start)[0].ridge >= 0.1
    truth = rng.normal(size=(20, 2))
    halves = [rng.normal(size=(400, 20)) for _ in range(2)]
    made, left = _ridge.best_ridge(*(moments(half, half @ truth) for half in halves), start)
    assert made.ridge <= 1e-5
    assert left < 1e-5


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3, 3.0])
def test_the_way_downhill_ends_where_the_whole_grid_is_least(noise):
    rng = np.random.default_rng(1)
    mixing, truth = rng.normal(size=(12, 30)) + 0.1 * rng.normal(size=(12, 30)), rng.normal(size=(30, 4))
    keep = np.arange(0, 30, 2)
    train, held_out = (
        moments(x, x @ truth + noise * rng.normal(size=(len(x), 4))).kept(keep)
        for x in (rng.normal(size=(60, 12)) @ mixing + 0.05 * rng.normal(size=(60, 30)) for _ in range(2))
    )
    start = truth.T[:, keep]
    errors = {each: _ridge.error(_ridge.fit(train, start, each), held_out) for each in _ridge.GRID}
    best = min(errors, key=lambda each: errors[each])
    made, left = _ridge.best_ridge(train, held_out, start)
    assert (made.ridge, left) == (best, pytest.approx(errors[best]))


def test_many_targets_are_compared_by_few_directions():
    rng = np.random.default_rng(1)
    mixing, truth, keep = rng.normal(size=(12, 30)), rng.normal(size=(30, 400)), np.arange(0, 30, 2)
    train, held_out = (
        moments(x, x @ truth + 0.3 * rng.normal(size=(60, 400))).kept(keep)
        for x in (rng.normal(size=(60, 12)) @ mixing + 0.05 * rng.normal(size=(60, 30)) for _ in range(2))
    )
    start = truth.T[:, keep]
    errors = {each: _ridge.error(_ridge.fit(train, start, each), held_out) for each in _ridge.GRID}
    made, left = _ridge.best_ridge(train, held_out, start)
    assert left == pytest.approx(errors[made.ridge])
    assert left < 1.01 * min(errors.values())


def test_where_nothing_can_be_inverted_the_first_problem_is_told(monkeypatch):
    broken = np.linalg.LinAlgError("not positive definite")

    def fail(*_):
        raise broken

    monkeypatch.setattr(_ridge._Rows, "fit", fail)
    rng = np.random.default_rng(0)
    seen = moments(rng.normal(size=(9, 3)), rng.normal(size=(9, 2)))
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        _ridge.best_ridge(seen, seen, np.zeros((2, 3)))


def test_rows_that_count_twice_are_as_rows_that_are_there_twice():
    rng = np.random.default_rng(3)
    x, t = (rng.normal(size=(20, size)).astype(np.float32) for size in (4, 2))
    weights = rng.integers(1, 4, 20)
    counted, there = JointMoments(), moments(np.repeat(x, weights, 0), np.repeat(t, weights, 0))
    counted.add(x, t, weights.astype(np.float32))
    for name in ("cross", "sums", "power", "rows"):
        assert getattr(counted, name) == pytest.approx(getattr(there, name), rel=1e-4, abs=1e-4)
    assert counted.inputs.covariance == pytest.approx(there.inputs.covariance, rel=1e-4, abs=1e-4)


def test_moments_of_a_product_and_of_mapped_inputs():
    rng = np.random.default_rng(2)
    x, weight, bias = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(3, 4)), rng.normal(size=3)
    seen = Moments()
    seen.add(x)
    made, expected = JointMoments.of_product(seen, weight, bias), moments(x, x @ weight.T + bias)
    for name in ("cross", "sums", "power"):
        assert getattr(made, name) == pytest.approx(getattr(expected, name), rel=1e-4, abs=1e-4)
    turned, direct = seen.mapped(weight, bias), Moments()
    direct.add((x @ weight.T + bias).astype(np.float32))
    assert turned.gram == pytest.approx(direct.gram, rel=1e-4, abs=1e-4)
    assert turned.mean == pytest.approx(direct.mean, rel=1e-4, abs=1e-4)
    assert np.allclose(seen.covariance, np.cov(x.T, bias=True), atol=1e-5)


def test_parts_add_up():
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    parts, whole = [(1, moments(x[:10], t[:10])), (1, moments(x[10:], t[10:]))], moments(x, t)
    both = JointMoments.summed(parts)
    some = np.array([0, 2, 3])
    fewer, expected = both.kept(some), np.cov(t.T, x.T, bias=True)
    assert fewer.cross_covariance == pytest.approx(expected[:2, 2:][:, some], abs=1e-5)
    assert fewer.inputs.covariance == pytest.approx(expected[np.ix_(some + 2, some + 2)], abs=1e-5)
    assert fewer.inputs.kept(np.array([1])).centered() == pytest.approx(expected[4:5, 4:5], abs=1e-5)
    assert both.target_variance == pytest.approx(whole.target_variance, rel=1e-5)
    assert JointMoments.summed([(0, whole), (1, JointMoments())]).rows == 0
    assert JointMoments.summed([(1, JointMoments()), (1, whole)]) is whole
    half = JointMoments.summed([(0.5, whole)])
    assert (half.rows, half.power) == (15, whole.power / 2)
    assert half.inputs.covariance == pytest.approx(whole.inputs.covariance)


def test_directions_of_a_covariance_that_sums_have_made_indefinite():
    covariance = np.ones((4, 4)) + 1e-9 * np.eye(4)
    covariance[0, 1] = covariance[1, 0] = 1 + 1e-5
    made, read, _ = _subspace.of_values(covariance, np.ones((3, 4)), 1)
    assert read @ made @ np.ones(4) == pytest.approx(4 * np.ones(3), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_all_dims_of_a_head_lose_nothing(seed):
    rng = np.random.default_rng(seed)
    c, weight = np.cov(rng.normal(size=(6, 50))), rng.normal(size=(9, 6))
    made, read, lost = _subspace.of_values(c, weight, 6)
    assert read @ made == pytest.approx(weight, rel=1e-3, abs=1e-3)
    assert lost == 0
    queries, keys, _ = _subspace.of_logits(c, np.cov(rng.normal(size=(6, 50))), 6)
    assert queries.T @ keys == pytest.approx(np.eye(6), abs=1e-3)


def test_values_of_low_rank_need_few_dims():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 6))
    weight = rng.normal(size=(4, 6))
    made, read, lost = _subspace.of_values(np.cov(v.T), weight, 2)
    assert v @ made.T @ read.T == pytest.approx(v @ weight.T, abs=1e-2)
    assert lost < 1e-4


# surgery on the graph ------------------------------------------------------------------------------------------------


def site(tower, role):
    return next(site for site in tower.sites if site.role == role)


def embedded(tower, kind):
    (feed,) = tiny_towers.feeds(kind, 1)
    return open_session(tower.graph).run(None, feed)[0]


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_outputs_do_not_change_where_pruned_channels_are_constant(tiny_encoder, kind):
    tower = tiny_encoder.towers[kind]
    first = site(tower, "mlp.fc1")
    weight, bias = linear(tower, first)
    gone = np.array([0, 5, 71])
    weight = weight.copy()
    weight[gone] = 0  # what is left of these neurons is gelu(bias), the same for every token
    replace(tower, first, weight, bias)
    before = embedded(tower, kind)
    context = Context(lambda name: tiny_towers.feeds(name, 12))
    mlp.apply(
        tiny_encoder, mlp.Spec(towers=(kind,), ratio=3 / 72, multiple=1, score="variance", compensate="bias"), context
    )
    assert site(tower, "mlp.fc1").shape == (tiny_towers.WIDTH, 69)
    assert site(tower, "mlp.fc2").shape == (69, tiny_towers.WIDTH)
    assert linear(tower, site(tower, "mlp.fc1"))[1] == pytest.approx(np.delete(bias, gone))
    assert embedded(tower, kind) == pytest.approx(before, abs=1e-5)


def test_narrowing_by_hand(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    first, second = site(tower, "mlp.fc1"), site(tower, "mlp.fc2")
    (w1, b1), (w2, b2) = linear(tower, first), linear(tower, second)
    keep = np.array([1, 2, 40])
    narrow(tower, [first], second, keep)
    (n1, c1), (n2, c2) = linear(tower, site(tower, "mlp.fc1")), linear(tower, site(tower, "mlp.fc2"))
    assert np.array_equal(n1, w1[keep])
    assert np.array_equal(c1, b1[keep])
    assert np.array_equal(n2, w2[:, keep])
    assert np.array_equal(c2, b2)


def test_a_bias_is_added_where_there_is_none(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    projection = site(tower, "projection")
    assert bias_of(tower, projection) is None
    weight, nothing = linear(tower, projection)
    assert not nothing.any()
    replace(tower, projection, 0 * weight, np.arange(tiny_towers.JOINT))
    expected = np.arange(tiny_towers.JOINT) / np.linalg.norm(np.arange(tiny_towers.JOINT))
    assert embedded(tower, "text") == pytest.approx(np.tile(expected, (3, 1)), abs=1e-6)


def test_a_weight_that_others_read_stays_theirs(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    first, other = (
        each for each in tower.sites if each.role == "attn.qkv" and each.name in ("/q.product", "/k.product")
    )
    next(node for node in tower.graph.graph.node if node.name == other.node).input[1] = first.weight
    weight, bias = linear(tower, first)
    replace(tower, first, 2 * weight, bias)
    held = initializers(tower.graph)
    reads = {node.name: node.input[1] for node in tower.graph.graph.node if node.op_type == "MatMul"}
    assert np.array_equal(array(held[reads[first.node]]), 2 * weight.T)
    assert np.array_equal(array(held[reads[other.node]]), weight.T)


def test_layers_that_mix_channels_are_refused(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    first, second = site(tower, "mlp.fc1"), site(tower, "mlp.fc2")
    next(node for node in tower.graph.graph.node if node.op_type == "Gelu").op_type = "Softmax"
    with pytest.raises(UsageError, match="Softmax stands between"):
        narrow(tower, [first], second, np.arange(8))


def test_a_part_of_a_graph_computes_what_the_whole_does(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    (feed,) = tiny_towers.feeds("vision", 1)
    joined = junction(tower, site(tower, "mlp.fc2")).joined
    assert joined == "after_mlp"
    value = open_session(part(tower.graph, tower.inputs, [joined])).run(None, feed)[0]
    rest = part(tower.graph, [*tower.inputs, joined], [tower.output])
    assert [each.name for each in rest.graph.input] == [joined]
    assert open_session(rest).run(None, {joined: value})[0] == pytest.approx(embedded(tower, "vision"), abs=1e-6)


def test_a_walk_sees_what_flows(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    found = junction(tower, site(tower, "mlp.fc2"))
    seen = next(walk(tower, [found], Context(tiny_towers.feeds)))
    values = {"inner": [], "after": [], "before": []}
    model = part(tower.graph, tower.inputs, [found.inner, found.joined, found.residual])
    for feed in tiny_towers.feeds("text"):
        for name, value in zip(("inner", "after", "before"), open_session(model).run(None, feed), strict=True):
            values[name].append(value.reshape(-1, value.shape[-1]))
    inner, after, before = (np.concatenate(values[name]) for name in ("inner", "after", "before"))
    expected = moments(inner, after - before)
    assert seen.moments(1.0).rows == len(inner) == 49
    assert seen.moments(1.0).inputs.gram == pytest.approx(expected.inputs.gram, rel=1e-4, abs=1e-3)
    assert seen.moments(1.0).cross == pytest.approx(expected.cross, rel=1e-4, abs=1e-3)


def test_too_few_rows_fit_the_bias_alone(tiny_encoder):
    report = mlp.apply(tiny_encoder, mlp.Spec(towers=("text",)), Context(lambda kind: tiny_towers.feeds(kind, 1)))
    assert any("21 rows of calibration are too few" in row.treatment for row in report.rows)


def test_without_data(tiny_encoder):
    with pytest.raises(UsageError, match="needs calibration data"):
        mlp.apply(tiny_encoder, mlp.Spec(), Context())


# attention -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def headed(tmp_path):
    """An encoder whose attentions have four heads of ten."""
    return tiny_towers.encoder(tmp_path, heads=4)


def attention_of(tower):
    return attention(tower, [site for site in tower.sites if site.role.startswith("attn.")])


def feeds(kind):
    return tiny_towers.feeds(kind, 12)


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_attention_is_read_from_the_graph(headed, tiny_encoder, kind):
    found = attention_of(headed.towers[kind])
    names = [branch.site.name for branch in (found.query, found.key, found.value, found.output)]
    assert names == ["/q.product", "/k.product", "/v.product", "/out.product"]
    assert (found.heads, found.query_width, found.value_width) == (4, 10, 10)
    assert found.output.reshape == "/mixed_joined"
    single = attention_of(tiny_encoder.towers[kind])
    assert (single.heads, single.query_width, single.value.reshape) == (1, tiny_towers.WIDTH, None)


def test_heads_keep_their_columns(headed):
    tower = headed.towers["text"]
    before = {branch.site.name: linear(tower, branch.site)[0] for branch in (attention_of(tower).query,)}
    report = heads.apply(headed, heads.Spec(towers=("text",), ratio=0.5), Context(feeds))
    gone = [int(text) for text in report.rows[0].removed.replace("-", ", ").split(", ")]
    after = attention_of(tower)
    assert (after.heads, after.query_width, after.value_width) == (2, 10, 10)
    stay = [head for head in range(4) if head not in gone]
    columns = np.concatenate([np.arange(10 * head, 10 * head + 10) for head in stay])
    assert np.array_equal(linear(tower, after.query.site)[0], before["/q.product"][columns])


def test_a_head_count_that_does_not_divide(headed):
    with pytest.raises(UsageError, match="4 heads are no multiple of 8"):
        heads.apply(headed, heads.Spec(multiple=8), Context(feeds))
    tower = headed.towers["vision"]
    shape = next(each for each in tower.graph.graph.initializer if each.name == "head_shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([0, 0, 5, 7], np.int64), "head_shape"))
    with pytest.raises(UsageError, match="are cut into"):
        vo.apply(headed, vo.Spec(towers=("vision",)), Context(feeds))


def test_all_dims_but_those_that_say_nothing(headed):
    """Values of rank 5 in heads of ten: half of the dims go and nothing changes; logits likewise."""
    tower = headed.towers["text"]
    found, rng = attention_of(tower), np.random.default_rng(0)
    for branch in (found.value, found.query):
        weight, bias = (each.reshape(4, 10, -1) for each in linear(tower, branch.site))
        base = np.linalg.qr(rng.normal(size=(10, 5)))[0]
        flat = base @ base.T
        replace(tower, branch.site, (flat @ weight).reshape(40, -1), (flat @ bias).ravel())
    before = embedded(tower, "text")
    for method in (vo, qk):
        spec = method.Spec(towers=("text",), ratio=0.5, multiple=1)
        method.apply(headed, spec, Context(feeds))
    after = attention_of(tower)
    assert (after.heads, after.query_width, after.value_width) == (4, 5, 5)
    assert embedded(tower, "text") == pytest.approx(before, abs=2e-3)


def test_a_large_tower_is_calibrated_part_by_part(tmp_path, monkeypatch):
    """As the tower was before the step, whatever went from its first parts, and no part twice."""
    (tmp_path / "a").mkdir()
    whole, parts = (tiny_towers.encoder(tmp_path / "a", heads=2, blocks=3) for _ in range(2))
    spec = qk.Spec(ratio=0.5, multiple=1, towers=("text",))
    qk.apply(whole, spec, Context(tiny_towers.feeds))
    monkeypatch.setattr(surgery, "LARGE", 0)
    asked, ran = [], child.run
    monkeypatch.setattr(stream.child, "run", lambda *given: asked.append(given[-1]) or ran(*given))
    qk.apply(parts, spec, Context(tiny_towers.feeds))
    assert len(asked) == len(set(asked)) > 1
    for old, new in zip(*(each.towers["text"].graph.graph.initializer for each in (whole, parts)), strict=True):
        np.testing.assert_allclose(array(new), array(old), rtol=1e-4, atol=1e-5)


def test_rows_are_summed_in_whatever_parts_they_come(monkeypatch):
    rng = np.random.default_rng(4)
    x, t, weights = (rng.random((30, size), np.float32) for size in (4, 2, 1))
    expected = JointMoments()
    expected.add(x, t, weights=weights[:, 0])
    monkeypatch.setattr(follower, "_MANY", 11)
    half = follower._Half(JointMoments(), "here")
    for start in range(0, 30, 5):
        rows = slice(start, start + 5)
        half.add([x[rows], t[rows]], weights[rows, 0])
    made = half.summed()
    for name in ("cross", "sums", "power", "rows"):
        assert getattr(made, name) == pytest.approx(getattr(expected, name), rel=1e-5)
    assert made.inputs.gram == pytest.approx(expected.inputs.gram, rel=1e-5)
    half.add([np.full((2, 4), np.nan, np.float32), t[:2]], None)
    with pytest.raises(UsageError, match="here"):
        half.summed()


def test_products_are_those_of_numpy():
    rng = np.random.default_rng(5)
    left, right, vector = rng.normal(size=(3, 5)), rng.normal(size=(5, 4)), rng.normal(size=5)
    for a, b in (
        (left, right),
        (np.asfortranarray(left), right),
        (left, np.asfortranarray(right)),
        (left[:, ::2], right[::2]),
    ):
        assert _ridge.product(a, b) == pytest.approx(a @ b)
    assert _ridge.applied(left, vector) == pytest.approx(left @ vector)
