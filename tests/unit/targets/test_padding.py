"""A padding mask that is looked up place by place is the mask with axes put in, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.targets.graph.emitter import emit
from compress.targets.graph.padding import read_padding_whole
from compress.targets.graph.session import open_session, run

CONSTANTS = {"zero": 0, "one": 1, "two": 2, "last": [-1], "outer": [1, 2], "inner": [0, 1]}


def range_of(source, axis, name, start="zero"):
    """0, 1, 2 ... as far as an axis of a graph's input is long."""
    return [
        helper.make_node("Shape", [source], [f"{name}_size"], start=axis, end=axis + 1),
        helper.make_node("Squeeze", [f"{name}_size"], [f"{name}_length"]),
        helper.make_node("Range", [start, f"{name}_length", "one"], [name]),
    ]


def looked_up(
    rows=("mask", 0), columns=("ids", 1), order=("rows", "columns"), batch_dims=0, start="zero", shape=("batch", "keys")
):
    """mask (batch, keys) looked up at (row, column) for places (batch, 1, keys): what an exporter makes of it."""
    nodes = [
        *range_of(*rows, "row"),
        *range_of(*columns, "column", start=start),
        helper.make_node("Unsqueeze", ["row", "outer"], ["rows_apart"]),
        helper.make_node("Unsqueeze", ["column", "inner"], ["columns_apart"]),
        helper.make_node("Max", ["rows_apart", "columns_apart"], ["spread"]),
        helper.make_node("Shape", ["spread"], ["sizes"]),
        helper.make_node("Expand", ["rows_apart", "sizes"], ["rows_spread"]),
        helper.make_node("Expand", ["columns_apart", "sizes"], ["columns_spread"]),
        helper.make_node("Unsqueeze", ["rows_spread", "last"], ["rows"]),
        helper.make_node("Unsqueeze", ["columns_spread", "last"], ["columns"]),
        helper.make_node("Concat", list(order), ["places"], axis=-1),
        helper.make_node("GatherND", ["mask", "places"], ["found"], batch_dims=batch_dims),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("mask", "ids")]
    inputs.append(helper.make_tensor_value_info("other", TensorProto.INT64, ["some", "more"]))
    outputs = [helper.make_tensor_value_info("found", TensorProto.INT64, ["batch", 1, "keys"])]
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_a_lookup_of_every_place_is_the_mask():
    plain, made = looked_up(), looked_up()
    read_padding_whole(made)
    onnx.checker.check_model(made)
    assert operators(made) == ["Unsqueeze"]
    mask = np.arange(15).reshape(3, 5) % 2
    feed = {"mask": mask, "ids": mask, "other": mask}
    before, after = (run(open_session(each), ["found"], feed)[0] for each in (plain, made))
    np.testing.assert_array_equal(after, before)
    assert after.shape == (3, 1, 5)


@pytest.mark.parametrize(
    "asked",
    [
        {"columns": ("other", 1)},  # as long as another input
        {"rows": ("other", 0)},
        {"order": ("columns", "rows")},  # the other way round
        {"order": ("columns", "rows"), "shape": ("n", "n")},  # turned, where both axes are as long
        {"start": "one"},  # not from the first on
        {"start": "two"},
        {"batch_dims": 1},  # of each sample by itself
    ],
    ids=str,
)
def test_a_lookup_of_other_places_stays(asked):
    made = looked_up(**asked)
    before = made.SerializeToString()
    read_padding_whole(made)
    assert made.SerializeToString() == before


def test_the_text_tower_reads_its_mask_whole(pocket_clip):
    tower = pocket_clip.towers["text"]
    plain, made = emit(tower), emit(tower)
    read_padding_whole(made)
    assert operators(made).count("GatherND") == operators(plain).count("GatherND") - 1
    rng = np.random.default_rng(3)
    mask = (rng.random((4, 24)) < 0.7).astype(np.int64)  # with holes: nothing but the mask says what is hidden
    mask[:, 0] = 1
    feed = {"input_ids": rng.integers(3, 100, (4, 24)), "attention_mask": mask}
    before, after = (run(open_session(each), [tower.output], feed)[0] for each in (plain, made))
    np.testing.assert_array_equal(after, before)
