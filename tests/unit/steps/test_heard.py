"""Tokens that reach the embedding: found in few runs where they are few, and one by one where all are pooled."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.steps.follower import _heard
from compress.targets.graph.session import open_session

BATCH, TOKENS, WIDTH = 3, 64, 5


def rest(nodes):
    """What follows the stream; counts how often it is run."""
    stream = helper.make_tensor_value_info("stream", TensorProto.FLOAT, [None, TOKENS, WIDTH])
    ends = helper.make_tensor_value_info("ends", TensorProto.INT64, [None, 2])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "rest", [stream, ends], [out], [axes])
    return Counted(open_session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)))


class Counted:
    """A session that counts."""

    def __init__(self, session):
        self.session, self.runs = session, 0

    def get_inputs(self):
        return self.session.get_inputs()

    def run(self, *given):
        self.runs += 1
        return self.session.run(*given)


def found(session, places, likely=()):
    stream = np.random.default_rng(1).standard_normal((BATCH, TOKENS, WIDTH)).astype(np.float32)
    ends = np.array([[row, place] for row, place in enumerate(places)], np.int64)
    return _heard(session, {"joined": "stream", "output": "out"}, {"ends": ends}, stream, likely)


@pytest.mark.parametrize("places", [(0, 0, 0), (63, 63, 63), (5, 40, 41)])
def test_the_pooled_token_of_each_sample(places):
    session = rest([helper.make_node("GatherND", ["stream", "ends"], ["out"])])
    expected = np.zeros((BATCH, TOKENS), bool)
    expected[range(BATCH), places] = True
    np.testing.assert_array_equal(found(session, places), expected)
    assert session.runs < 40, "64 tokens are not tried one by one"


@pytest.mark.parametrize("likely", [[5, 40], [5, 40, 41], [0], [63, 99]])
def test_what_an_earlier_batch_heard_is_tried_first(likely):
    """Guesses spare runs where they are right, and change nothing where they are wrong."""
    expected = np.zeros((BATCH, TOKENS), bool)
    expected[range(BATCH), (5, 40, 41)] = True
    session = rest([helper.make_node("GatherND", ["stream", "ends"], ["out"])])
    np.testing.assert_array_equal(found(session, (5, 40, 41), likely), expected)
    if likely == [5, 40, 41]:
        assert session.runs == 5, "once as it is, each of the three, and all the others"


def test_all_tokens_of_a_mean():
    nodes = [
        helper.make_node("ReduceMean", ["stream", "axes"], ["mean"], keepdims=0),
        helper.make_node("GatherND", ["stream", "ends"], ["one"]),
        helper.make_node("Add", ["mean", "one"], ["out"]),
    ]
    session = rest(nodes)
    assert found(session, (3, 3, 3)).all()
    assert session.runs < 80, "each once, and a few before"


def test_tokens_that_nobody_hears():
    session = rest([helper.make_node("Cast", ["ends"], ["out"], to=onnx.TensorProto.FLOAT)])
    assert not found(session, (1, 2, 3)).any()
    assert session.runs < 10
