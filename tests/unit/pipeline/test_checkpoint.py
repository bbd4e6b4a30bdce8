"""A checkpoint gives back exactly what was saved, or says why not; bytes that changed are never taken."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import BlockWeights, Float16, StaticFloat8, StaticInt8
from compress.pipeline.checkpoint import Checkpoint
from compress.steps.step import SiteReport, StepReport

FOLLOWS = {"recipe": "a" * 64, "model": "b" * 64, "calibration data": None, "numpy": "2.4.6"}
RNG = np.random.default_rng(0)
BLOCKS = BlockWeights(
    RNG.integers(0, 16, (3, 2, 32), np.uint8), RNG.normal(size=(3, 2)).astype(np.float32), None, 4, 40
)
STATIC = StaticInt8(
    RNG.integers(-127, 128, (3, 5), np.int8),
    RNG.normal(size=3).astype(np.float32),
    0.1 + 0.2,  # not exact in decimals
    zero_point=9,
)


class Told:
    """Progress that remembers what was said."""

    def __init__(self):
        self.lines = []

    def track(self, items, what, total=None):
        yield from items

    def say(self, line):
        self.lines.append(line)


def tower(kind, fill=1.0):
    weight = numpy_helper.from_array(np.full((2, 2), fill, np.float32), "w")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="n")], "main", [value], [made], [weight]
    )
    return Tower(kind, helper.make_model(graph), (Site("a", "mlp.fc1", 0, "MatMul", "n", "w", (2, 2)),), ("x",), "y")


def encoder():
    towers = {kind: tower(kind) for kind in ("vision", "text")}
    return Encoder("s", None, "onnx", 8, towers, {}, {}, None, True)


def report(use):
    rows = (SiteReport("vision", "a", "mlp.fc1", "int4", 16, 8, 0.1),)
    return StepReport(use, "did it", rows, table=(("tower", "loss"), ("vision", "0.1")))


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints after two steps; the second one changed the text tower's graph as well."""
    model = encoder()
    kept = Checkpoint(tmp_path / "c", FOLLOWS, model, Told())
    assert kept.start(resume=False) == []
    model.towers["vision"].treatments["a"] = BLOCKS
    kept.save([report("quantize.one")])
    model.towers["vision"].treatments["b"] = STATIC
    model.towers["text"].graph = tower("text", fill=2.0).graph
    model.towers["text"].sites = ()
    kept.save([report("quantize.one"), report("prune.two")])
    return tmp_path / "c"


def resume(folder, follows=FOLLOWS):
    model, told = encoder(), Told()
    return model, Checkpoint(folder, follows, model, told).start(resume=True), told.lines


def same(a, b):
    for name in a.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        assert type(left) is type(right)
        np.testing.assert_array_equal(left, right)


def test_everything_comes_back(saved):
    model, reports, lines = resume(saved)
    assert reports == [report("quantize.one"), report("prune.two")]
    same(model.towers["vision"].treatments["a"], BLOCKS)
    same(model.towers["vision"].treatments["b"], STATIC)
    assert model.towers["text"].treatments == {}
    assert model.towers["text"].graph == tower("text", fill=2.0).graph
    assert model.towers["text"].sites == ()
    assert model.towers["vision"].graph == tower("vision").graph
    assert lines == ["resumed after step 2: quantize.one, prune.two"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "seal", "empty seal", "renamed"])
def test_a_damaged_checkpoint_is_not_taken_and_the_one_before_is(saved, damage):
    data, seal = saved / "2.npz", saved / "2.json"
    content = bytearray(data.read_bytes())
    match damage:
        case "flip":
            content[len(content) // 2] ^= 1
            data.write_bytes(content)
        case "truncate":
            data.write_bytes(content[:-1])
        case "remove":
            data.unlink()
        case "seal":
            seal.write_text(seal.read_text()[:-5])
        case "empty seal":
            seal.write_text("[]")
        case "renamed":
            data.write_bytes((saved / "1.npz").read_bytes())
            seal.write_bytes((saved / "1.json").read_bytes())
    model, reports, lines = resume(saved)
    assert reports == [report("quantize.one")]
    assert list(model.towers["vision"].treatments) == ["a"]
    assert model.towers["text"].graph == tower("text").graph
    assert "after step 2 is damaged" in lines[0]
    assert lines[1] == "resumed after step 1: quantize.one"


def test_bytes_without_their_seal_are_no_checkpoint(saved):
    (saved / "2.json").unlink()
    assert resume(saved)[1] == [report("quantize.one")]


def test_nothing_left_starts_at_the_first_step(saved):
    for path in saved.glob("*.npz"):
        path.write_bytes(b"")
    model, reports, lines = resume(saved)
    assert (reports, model.towers["vision"].treatments) == ([], {})
    assert lines[-1] == "there is no checkpoint to resume; starting with the first step"


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_follows_from_something_else_is_refused_with_the_reason(saved, name):
    with pytest.raises(UsageError, match=f"cannot resume: {name} changed") as caught:
        resume(saved, {**FOLLOWS, name: "other"})
    assert "--resume" in caught.value.hint


def test_without_resume_an_old_checkpoint_is_removed(saved):
    model = encoder()
    assert Checkpoint(saved, FOLLOWS, model, Told()).start(resume=False) == []
    assert not saved.exists()
    assert model.towers["vision"].treatments == {}


def test_nothing_is_pickled(saved):
    for path in saved.glob("*.npz"):
        with np.load(path, allow_pickle=False) as held:
            assert all(held[name].dtype != object for name in held)
    assert json.loads((saved / "1.json").read_text())["step"] == 1


def test_the_graph_is_kept_only_where_a_step_changed_it(saved):
    with np.load(saved / "1.npz") as first, np.load(saved / "2.npz") as second:
        assert not [name for name in first if "/graph/" in name]
        assert {name.split("/")[0] for name in second if "/graph/" in name} == {"text"}
        onnx.ModelProto().ParseFromString(second["text/graph/0"].tobytes())


@pytest.mark.parametrize(
    "held",
    [
        Float16(RNG.normal(size=(3, 5)).astype(np.float16), np.array(["scores", "a longer name"], np.str_)),
        Float16(RNG.normal(size=(3, 5)).astype(np.float16), np.array([], np.str_)),
        StaticFloat8(RNG.integers(0, 127, (3, 5), np.uint8), RNG.normal(size=3).astype(np.float32), 0.1 + 0.2),
    ],
    ids=["wide", "nothing wide", "fp8"],
)
def test_treatments_of_other_kinds_come_back(tmp_path, held):
    first = encoder()
    kept = Checkpoint(tmp_path, FOLLOWS, first, Told())
    first.towers["vision"].treatments["a"] = held
    kept.save([report("quantize.fp16")])
    again = encoder()
    assert Checkpoint(tmp_path, FOLLOWS, again, Told()).start(resume=True)
    back = again.towers["vision"].treatments["a"]
    assert type(back) is type(held)
    for name in held.__dataclass_fields__:
        left, right = np.asarray(getattr(back, name)), np.asarray(getattr(held, name))
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
