"""Texts cut where the longest of a batch ends: the same embeddings, fewer tokens, and only where that is proved."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tiny_clip
from graphs import rewritten, shown
from onnx import TensorProto, helper, numpy_helper

from compress.data.runtime import CUT
from compress.models.graph import clean
from compress.models.loading import load
from compress.models.sites import by_topology
from compress.models.tower import copied
from compress.recipe.sources import NamedModel
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.attention import fuse_attention
from compress.targets.graph.emitter import emit
from compress.targets.graph.ending import cut_after_end
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.padding import read_padding_whole
from compress.targets.graph.session import open_session, run

END, LENGTH = 3, 24
METHODS = pytest.mark.parametrize(
    ("method", "options", "near"),
    [(None, {}, 1e-6), (int8_static, {"float_above": None}, 1e-6), (int4_rtn, {"block": 32}, 1e-5)],
    ids=["float", "int8", "int4"],
)


@pytest.fixture(scope="module", params=["pocket-clip", "transformers"])
def encoder(request, tmp_path_factory):
    if request.param == "pocket-clip":
        return request.getfixturevalue("pocket_clip")
    folder = tiny_clip.save(tmp_path_factory.mktemp("model") / "clip")
    return load(NamedModel(source=str(folder)), offline=True)


def texts(rows=5, longest=11, masked=True, seed=0):
    """Ids and masks of texts that end at places of their own, the longest with so many tokens; others stand behind."""
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(5, 90, (rows, LENGTH)), np.ones((rows, LENGTH), np.int64)
    for row, last in enumerate([longest - 1, *rng.integers(1, longest, rows - 1)]):
        ids[row, last] = END
        if masked:
            ids[row, last + 1 :], mask[row, last + 1 :] = END, 0  # what CLIP's own tokenizer fills up with
    return {"input_ids": ids, "attention_mask": mask}


def treated(encoder, method, options):
    made = copied(encoder, ("text",))
    if method is not None:
        spec = method.Spec.model_validate({"towers": ("text",), **options})
        method.apply(made, spec, Context(lambda _: iter([texts(8, seed=1)])))
    return made.towers["text"]


def written(tower, change=lambda _: None):
    """The graph as this target writes it up to here, with something changed."""
    made = emit(tower)
    read_padding_whole(made)
    fuse_products(made)
    fuse_attention(made)
    change(made)
    return made


def cut(made):
    return rewritten(made, cut_after_end)


@METHODS
@pytest.mark.parametrize("masked", [True, False], ids=["padding", "no-mask"])
def test_embeddings_are_the_same_and_tokens_are_fewer(encoder, method, options, near, masked):
    tower = treated(encoder, method, options)
    before = written(tower)
    after = cut(before)
    onnx.checker.check_model(after, full_check=True)
    feed = texts(masked=masked)
    last = [node for node in before.graph.node if node.op_type == "Attention"][-1]
    names = [tower.output, last.output[0]]
    expected, long = run(open_session(shown(before, names[1])), names, feed)
    found, short = run(open_session(shown(after, names[1])), names, feed)
    np.testing.assert_allclose(found, expected, atol=near)
    assert len({tuple(row) for row in np.round(found, 4)}) == len(found), "texts that are told apart"
    assert (long.shape[1], short.shape[1]) == (LENGTH, 11)


def test_the_largest_id_can_end_a_text(tmp_path):
    """As in models that were published before configs named the end token right (`eos_token_id` 2)."""
    folder = tiny_clip.save(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    tower = load(NamedModel(source=str(folder)), offline=True).towers["text"]
    before = written(tower)
    assert not of(before, "Equal"), "no id is named"
    feed = texts()
    feed["input_ids"][feed["input_ids"] == END] = len(tiny_clip.VOCABULARY) - 1
    last = of(before, "Attention")[-1].output[0]
    expected, long = run(open_session(shown(before, last)), [tower.output, last], feed)
    found, short = run(open_session(shown(cut(before), last)), [tower.output, last], feed)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (long.shape[1], short.shape[1]) == (LENGTH, 11)


def test_a_text_is_the_same_whatever_stands_beside_it(encoder):
    session = open_session(onnxruntime_cpu.fused(encoder.towers["text"]))
    feed = texts(rows=6)
    (together,) = run(session, ["text_embeds"], feed)
    alone = [run(session, ["text_embeds"], {name: each[at : at + 1] for name, each in feed.items()}) for at in range(6)]
    np.testing.assert_allclose(np.concatenate([each for (each,) in alone]), together, atol=1e-6)


def test_a_text_without_an_end_is_what_it_was(encoder):
    tower = encoder.towers["text"]
    feed = {**texts(), "input_ids": np.full((5, LENGTH), 50)}
    before = written(tower)
    expected, found = (run(open_session(each), [tower.output], feed)[0] for each in (before, cut(before)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_file_that_is_read_again_takes_whole_texts(encoder):
    tower = encoder.towers["text"]
    again = clean(cut(written(tower)))
    assert not any(name.endswith(CUT) for node in again.graph.node for name in node.output)
    roles = sorted(site.role for site in tower.sites if site.role != "embedding")
    assert sorted(site.role for site in by_topology(again) if site.role != "embedding") == roles
    assert "embedding" in {site.role for site in by_topology(again)}
    feed = texts()
    expected, found = (run(open_session(each), [tower.output], feed)[0] for each in (tower.graph, again))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    once = cut(written(tower))
    assert cut(once) == once, "cut already"


def test_a_slice_of_somebody_else_stays():
    """Its name may end alike: what is cut must be an input, and be called after it."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Slice", ["y", "first", "last", "axis"], [f"y_{CUT}"]),
        helper.make_node("Slice", ["x", "first", "last", "axis"], [f"z_{CUT}"]),
        helper.make_node("Concat", [f"y_{CUT}", f"z_{CUT}"], ["w"], axis=1),
    ]
    weights = [numpy_helper.from_array(np.array([at]), name) for name, at in (("first", 0), ("last", 2), ("axis", 1))]
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, ["batch", 4])
    made = helper.make_model(helper.make_graph(nodes, "g", [value], [out], weights))
    assert [node.op_type for node in clean(made).graph.node] == ["Relu", "Slice", "Slice", "Concat"]
    assert clean(made).graph.node[-1].input == [f"y_{CUT}", f"z_{CUT}"]


def of(made, op):
    return [node for node in made.graph.node if node.op_type == op]


def constant(made, name, value):
    made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def sees_what_comes(made):
    """Every token sees all others."""
    for node in of(made, "LessOrEqual"):
        node.op_type = "GreaterOrEqual"


def hides_too_little(made):
    """What comes later weighs less, but is seen."""
    least = constant(made, "too_little", np.float32(-20))
    first = of(made, "Attention")[0]
    at = list(made.graph.node).index(first)
    made.graph.node.insert(at, helper.make_node("Max", [first.input[3], least], ["seen"], name="seen"))
    for node in of(made, "Attention"):
        node.input[3] = "seen"


def no_mask(made):
    for node in of(made, "Attention"):
        del node.input[3:]


def adds_the_mean(made):
    """Something between two blocks that mixes tokens."""
    last = of(made, "Attention")[-1]
    at = list(made.graph.node).index(last)
    axes = constant(made, "tokens", np.array([1], np.int64))
    made.graph.node.insert(at, helper.make_node("ReduceMean", [last.input[2], axes], ["mean"], name="mean"))
    made.graph.node.insert(at + 1, helper.make_node("Add", [last.input[2], "mean"], ["shifted"], name="shifted"))
    last.input[2] = "shifted"


def counts_from_the_end(made):
    """Positions that the length of the text turns around."""
    table = next(each.name for each in made.graph.initializer if "position_embedding" in each.name)
    (lookup,) = [node for node in made.graph.node if node.op_type == "Gather" and node.input[0] == table]
    at = list(made.graph.node).index(lookup)
    names = [
        constant(made, f"back_{word}", np.array([value], np.int64))
        for word, value in (("first", -1), ("end", np.iinfo(np.int64).min), ("axis", -1), ("step", -1))
    ]
    made.graph.node.insert(at, helper.make_node("Slice", [lookup.input[1], *names], ["turned"], name="turned"))
    lookup.input[1] = "turned"


def pools_elsewhere(made):
    """The last token that is there, whatever the text says."""
    place = of(made, "ArgMax")[0]
    at = list(made.graph.node).index(place)
    made.graph.node.insert(at, helper.make_node("Neg", [place.input[0]], ["less"], name="less"))
    place.input[0] = "less"


def returns_all(made):
    """All tokens are wanted, by their mean."""
    last = of(made, "GatherND")[-1].input[0]
    axes = constant(made, "tokens", np.array([1], np.int64))
    made.graph.node.append(helper.make_node("ReduceMean", [last, axes], ["mean"], name="mean"))
    made.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, None))


def returns_one_more(made):
    """All tokens are wanted as they are."""
    last = of(made, "GatherND")[-1].input[0]
    made.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))


def of_one_length(made):
    for value in made.graph.input:
        value.type.tensor_type.shape.dim[1].ClearField("dim_param")
        value.type.tensor_type.shape.dim[1].dim_value = LENGTH


CHANGES = [
    sees_what_comes, hides_too_little, no_mask, adds_the_mean, counts_from_the_end, pools_elsewhere, returns_all,
    returns_one_more, of_one_length,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_proved_stays_as_it_is(encoder, change):
    made = written(encoder.towers["text"], change)
    names = [each.name for each in made.graph.output]
    run(open_session(made), names, texts())  # it is a graph that runs
    assert cut(made) == made
    assert cut(written(encoder.towers["text"])) != written(encoder.towers["text"])


def test_images_stay_as_they_are(encoder):
    made = emit(encoder.towers["vision"])
    assert cut(made) == made
