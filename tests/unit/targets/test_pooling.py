"""Of the last block only what the pooled token needs: the same embeddings, and one token behind the last attention.

Vision towers compute all of their tokens again where somebody asks for them.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import rewritten, shown
from onnx import TensorProto, helper, numpy_helper

from compress.data.runtime import COMPUTED
from compress.models.external_data import save
from compress.models.graph import clean
from compress.models.shape_inference import Shapes
from compress.models.sites import by_topology, tokens_by_topology
from compress.models.tower import copied
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets.graph.attention import fuse_attention
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.masking import lift_masked
from compress.targets.graph.padding import read_padding_whole
from compress.targets.graph.pooling import pool_early
from compress.targets.graph.session import open_session, run

END, LENGTH = 3, 24
EVERY = np.array([np.iinfo(np.int64).max])
METHODS = pytest.mark.parametrize(
    ("method", "options", "near"),
    [(None, {}, 1e-6), (int8_static, {"float_above": None}, 1e-6), (int4_rtn, {"block": 32}, 1e-5)],
    ids=["float", "int8", "int4"],
)


def texts(rows, seed=0):
    """Token ids and masks of texts that end at places of their own."""
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(5, 100, (rows, LENGTH)), np.ones((rows, LENGTH), np.int64)
    for row, end in enumerate(rng.integers(1, LENGTH, rows)):
        ids[row, end], mask[row, end + 1 :] = END, 0
    return {"input_ids": ids, "attention_mask": mask}


def images(rows, seed=0):
    return {"pixel_values": np.random.default_rng(seed).normal(size=(rows, 3, 64, 64)).astype(np.float32)}


MADE = {"text": texts, "vision": images}


def treated(pocket_clip, method, options, kind="text"):
    made = copied(pocket_clip, (kind,))
    if method is not None:
        spec = method.Spec.model_validate({"towers": (kind,), **options})
        method.apply(made, spec, Context(lambda _: iter([MADE[kind](8, seed=1)])))
    return made.towers[kind]


def both(tower, fuse=False):
    """The graph as it is written without this and with it."""
    plain = emit(tower)
    fuse_products(plain)
    if fuse:
        fuse_attention(plain)
    lift_masked(plain)
    moved = rewritten(plain, pool_early, tower.tokens)
    onnx.checker.check_model(moved, full_check=True)
    return plain, moved


@METHODS
@pytest.mark.parametrize("rows", [1, 7])
def test_embeddings_are_the_same(pocket_clip, method, options, near, rows):
    tower = treated(pocket_clip, method, options)
    plain, moved = both(tower)
    feed = texts(rows)
    before, after = (run(open_session(each), [tower.output], feed)[0] for each in (plain, moved))
    np.testing.assert_allclose(after, before, atol=near)
    assert len({tuple(row) for row in np.round(after, 4)}) == rows, "texts that are told apart"


def test_the_last_block_computes_one_token(pocket_clip, tmp_path):
    tower = treated(pocket_clip, None, {})
    last = max(site.layer for site in tower.sites if site.layer is not None)
    _, moved = both(tower)
    nodes = {node.name: node for node in moved.graph.node}
    at = {
        (site.layer, site.role): nodes[site.node].output[0]
        for site in tower.sites
        if site.role in ("attn.out", "mlp.fc1", "mlp.fc2")
    }
    save(moved, tmp_path / "moved.onnx", outputs=list(at.values()))
    made = run(open_session(tmp_path / "moved.onnx"), list(at.values()), texts(3))
    tokens = {place: value.shape[1] for place, value in zip(at, made, strict=True)}
    assert {count for (layer, _), count in tokens.items() if layer == last} == {1}
    assert {count for (layer, _), count in tokens.items() if layer != last} == {LENGTH}


@METHODS
@pytest.mark.parametrize("fuse", [False, True], ids=["products", "operator"])
def test_a_vision_tower_computes_its_first_token_and_the_others_when_they_are_asked_for(
    pocket_clip, method, options, near, fuse
):
    tower = treated(pocket_clip, method, options, "vision")
    plain, moved = both(tower, fuse)
    feed, names = images(5), [tower.output, tower.tokens]
    before, tokens = run(open_session(shown(plain, tower.tokens)), names, feed)
    after, first = run(open_session(shown(moved, tower.tokens)), names, feed)
    np.testing.assert_allclose(after, before, atol=near)
    np.testing.assert_allclose(first, tokens[:, :1], atol=10 * near)
    (number,) = (each for each in moved.graph.initializer if each.name == COMPUTED)
    number.CopyFrom(numpy_helper.from_array(EVERY, COMPUTED))
    after, every = run(open_session(shown(moved, tower.tokens)), names, feed)
    np.testing.assert_allclose(after, before, atol=near)
    np.testing.assert_allclose(every, tokens, atol=10 * near)
    assert every.shape[1] > 1
    assert [node.name for node in moved.graph.node if node.op_type == "Gather"][-1:] == [
        node.name for node in plain.graph.node if node.op_type == "Gather"
    ][-1:]


@pytest.mark.parametrize("fuse", [False, True], ids=["products", "operator"])
def test_a_vision_tower_that_is_read_again_computes_all_tokens(pocket_clip, fuse):
    tower = treated(pocket_clip, None, {}, "vision")
    _, moved = both(tower, fuse)
    again = clean(moved)
    assert COMPUTED not in {each.name for each in again.graph.initializer}
    sites = by_topology(again)
    assert {site.role for site in sites} >= {"attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2"}
    assert tokens_by_topology(again, sites) == tower.tokens
    feed = images(3)
    (tokens,) = run(open_session(shown(tower.graph, tower.tokens)), [tower.tokens], feed)
    (every,) = run(open_session(shown(again, tower.tokens)), [tower.tokens], feed)
    np.testing.assert_allclose(every, tokens, atol=1e-5)


def test_a_vision_tower_stays_as_it_is_where_tokens_have_another_reader(pocket_clip):
    tower = treated(pocket_clip, None, {}, "vision")

    def moves(change, tokens=tower.tokens):
        plain = emit(tower)
        change(plain.graph)
        made = rewritten(plain, pool_early, tokens)
        return made != plain

    def mean(graph):  # of all patches, beside the first token
        mean = helper.make_node("ReduceMean", [tower.tokens], ["mean"], name="mean")
        graph.node.append(mean)
        graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, None))

    def second(graph):  # another token than the first
        pooled = [node for node in graph.node if node.op_type == "Gather"][-1]
        graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "second"))
        pooled.input[1] = "second"

    def taken(graph):  # the name that readers look for
        graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), COMPUTED))
        graph.node.append(helper.make_node("Identity", [COMPUTED], ["taken"], name="taken"))
        graph.output.append(helper.make_tensor_value_info("taken", TensorProto.INT64, []))

    assert moves(lambda _: None)
    assert moves(lambda _: None, tokens=None)
    assert not moves(mean)
    assert not moves(second)
    assert not moves(taken)
    assert not moves(lambda _: None, tokens="elsewhere")


def test_the_query_of_an_attention_is_computed_for_one_token(pocket_clip):
    tower = treated(pocket_clip, None, {})
    plain = emit(tower)
    read_padding_whole(plain)
    fuse_attention(plain)
    moved = rewritten(plain, pool_early)
    onnx.checker.check_model(moved, full_check=True)
    shapes = Shapes(moved).of
    queries = [shapes[node.input[0]][1] for node in moved.graph.node if node.op_type == "Attention"]
    assert queries == ["sequence"] * (len(queries) - 1) + [1]
    assert "Transpose" not in {node.op_type for node in moved.graph.node}, "one row of the mask, and no copy of it"
    nodes = {node.name: node for node in moved.graph.node}
    last = max(site.layer for site in tower.sites if site.layer is not None)
    parts = [site.node for site in tower.sites if (site.layer, site.role) == (last, "attn.qkv")]
    assert sorted(str(shapes[nodes[each].output[0]][1]) for each in parts) == ["1", "sequence", "sequence"]
    feed = texts(5)
    before, after = (run(open_session(each), [tower.output], feed)[0] for each in (plain, moved))
    np.testing.assert_allclose(after, before, atol=1e-6)


def summed(model, last):
    """Something between the query's product and the attention that mixes tokens."""
    at = list(model.graph.node).index(last)
    model.graph.node.insert(at, helper.make_node("CumSum", [last.input[0], "axis"], ["summed"], name="summed"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "axis"))
    model.graph.node[at + 1].input[0] = "summed"


def returned(model, last):
    """The query is an output of the graph as well."""
    shape = ["batch", "sequence", None]
    model.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, shape))


@pytest.mark.parametrize("change", [summed, returned])
def test_a_query_that_others_need_is_chosen_where_it_is(pocket_clip, change):
    tower = treated(pocket_clip, None, {})
    plain = emit(tower)
    fuse_attention(plain)
    change(plain, [node for node in plain.graph.node if node.op_type == "Attention"][-1])
    moved = rewritten(plain, pool_early)
    onnx.checker.check_model(moved, full_check=True)
    assert len({node.name for node in moved.graph.node}) == len(moved.graph.node)
    last = [node for node in moved.graph.node if node.op_type == "Attention"][-1]
    makers = {name: node.op_type for node in moved.graph.node for name in node.output}
    assert makers[last.input[0]] == "Unsqueeze"
    feed = texts(5)
    before, after = (run(open_session(each), [tower.output], feed)[0] for each in (plain, moved))
    np.testing.assert_allclose(after, before, atol=1e-6)


def changed(pocket_clip, change):
    """Whether the text tower's graph is moved once something about it was changed."""
    plain = emit(treated(pocket_clip, None, {}))
    change({node.op_type: node for node in plain.graph.node}, plain)
    moved = rewritten(plain, pool_early)
    return moved != plain


def test_what_is_not_known_stays_as_it_is(pocket_clip):
    def mixed(nodes, model):  # something that mixes tokens behind the last attention
        last = [node for node in model.graph.node if node.op_type == "Gelu"][-1]
        last.op_type, last.domain = "CumSum", ""
        del last.attribute[:]
        last.input.append("axis")
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "axis"))

    def elsewhere(nodes, model):  # samples in another order than that of their numbers
        count = next(node for node in model.graph.node if node.op_type == "Range")
        model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "two"))
        for node in model.graph.node:
            if node.op_type == "Range" and node.output[0] == count.output[0]:
                node.input[2] = "two"

    def over_tokens(nodes, model):  # a norm over tokens and channels
        next(each for each in nodes["LayerNormalization"].attribute if each.name == "axis").i = 1

    def hidden_by_the_operator(nodes, model):  # whose one query would be taken for the first token
        fuse_attention(model)
        last = [node for node in model.graph.node if node.op_type == "Attention"][-1]
        last.attribute.append(helper.make_attribute("is_causal", 1))

    assert changed(pocket_clip, lambda *_: None)
    assert changed(pocket_clip, lambda _, model: fuse_attention(model))
    assert not changed(pocket_clip, hidden_by_the_operator)
    assert not changed(pocket_clip, over_tokens)
    assert not changed(pocket_clip, mixed)
    assert not changed(pocket_clip, elsewhere)


def test_a_graph_that_pools_nothing_stays_as_it_is():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph)
    before = model.SerializeToString()
    pool_early(model)
    assert model.SerializeToString() == before
