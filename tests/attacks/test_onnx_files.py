"""ONNX files that lie: about where their weights are, about how large they are, about being ONNX at all."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tiny_towers
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import IntegrityError, UsageError
from compress.models.onnx_towers import load_onnx

MUTATIONS = 300


def load(path):
    return load_onnx({"vision": path}, {})


def with_external(folder, location, **told):
    """A tower whose first weight is said to be elsewhere; returns its file and the bytes of the weight."""
    model = tiny_towers.vision()
    held = model.graph.initializer[0]
    content, held.data_location = held.raw_data, TensorProto.EXTERNAL
    held.ClearField("raw_data")
    for key, value in {"location": location, **told}.items():
        held.external_data.add(key=key, value=str(value))
    path = folder / "vision.onnx"
    path.write_bytes(model.SerializeToString())
    return path, content


def test_external_data_beside_the_model_are_read(tmp_path):
    path, content = with_external(tmp_path, "w.bin", offset=64, length=40 * 3 * 4 * 4 * 4)
    (tmp_path / "w.bin").write_bytes(bytes(64) + content + b"more")
    expected = numpy_helper.to_array(tiny_towers.vision().graph.initializer[0])
    tower = load(path).towers["vision"]
    weights = {tensor.name: tensor for tensor in tower.graph.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(weights["patch.weight"]), expected)
    assert not weights["patch.weight"].external_data


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "/etc/hostname", "sub/w.bin", "./w.bin", "sub/../w.bin", "w\0.bin", "..\\w.bin", "missing.bin", "sub",
     ".", "..", "", "w.bin/", "~/w.bin"],
)  # fmt: skip
def test_external_data_elsewhere(tmp_path, location):
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    path, content = with_external(inner, location)
    for place in (tmp_path, inner, inner / "sub"):
        (place / "w.bin").write_bytes(content)
    with pytest.raises(IntegrityError):
        load(path)


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symlink", "hard link"])
def test_external_data_that_are_a_link(tmp_path, link):
    path, content = with_external(tmp_path, "w.bin")
    (tmp_path / "outside").write_bytes(content)
    link(tmp_path / "outside", tmp_path / "w.bin")
    with pytest.raises(IntegrityError, match="not a regular file with one name"):
        load(path)


def test_external_data_that_are_a_pipe(tmp_path):
    path, _ = with_external(tmp_path, "w.bin")
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(IntegrityError, match="not a regular file"):
        load(path)


@pytest.mark.parametrize(
    "told",
    [
        {"offset": -4},
        {"length": -1},
        {"offset": 1 << 62},
        {"length": 1 << 62},
        {"offset": 4, "length": 40 * 3 * 4 * 4 * 4},
        {"offset": "0x10"},
        {"length": "1e3"},
        {"length": "٣"},
        {"offset": "9" * 5000},
        {"__class__": "x"},
        {"basepath": "/etc"},
    ],
    ids=lambda told: str(told)[:30],
)
def test_external_data_outside_of_their_file(tmp_path, told):
    path, content = with_external(tmp_path, "w.bin", **told)
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(IntegrityError):
        load(path)


@pytest.mark.parametrize("told", [{"length": 100}, {"offset": 40}, {}], ids=str)
def test_external_data_of_the_wrong_size(tmp_path, told):
    path, content = with_external(tmp_path, "w.bin", **told)
    (tmp_path / "w.bin").write_bytes(content if told else content[:-4])
    with pytest.raises(UsageError, match="not a valid ONNX model"):
        load(path)


def test_one_location_twice(tmp_path):
    path, content = with_external(tmp_path, "w.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    path.write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(IntegrityError, match="not said clearly"):
        load(path)


def elsewhere(name):
    """A tensor that wants to be read from a system file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def inner_graph(tensor):
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Identity", [tensor.name], ["out"])], "inner", [], [made], [tensor])


def in_a_branch(model):
    model.graph.node.append(
        helper.make_node(
            "If", ["x"], ["never"], then_branch=inner_graph(elsewhere("c")), else_branch=inner_graph(elsewhere("c"))
        )
    )


def in_a_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["never"], value=elsewhere("c")))


def in_a_function(model):
    nodes = [helper.make_node("Constant", [], ["b"], value=elsewhere("c"))]
    made = helper.make_function("local", "F", [], ["b"], nodes, [helper.make_opsetid("", 20)])
    model.functions.append(made)


def in_a_sparse_weight(model):
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(elsewhere("c"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0]), "i"))


def in_training_info(model):
    model.training_info.add().algorithm.CopyFrom(inner_graph(elsewhere("c")))


@pytest.mark.parametrize(
    "place", [in_a_branch, in_a_constant, in_a_function, in_a_sparse_weight, in_training_info], ids=lambda f: f.__name__
)
def test_external_data_anywhere_in_the_model(tmp_path, place):
    model = tiny_towers.vision()
    place(model)
    path = tmp_path / "vision.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(IntegrityError, match="no file beside the model"):
        load(path)


def test_a_sparse_weight_is_not_read_from_the_working_directory(tmp_path, monkeypatch):
    """Where ONNX loads no external data it would look for them later, relative to wherever it runs."""
    model = tiny_towers.vision()
    in_a_sparse_weight(model)
    model.graph.sparse_initializer[0].values.external_data[0].value = "w.bin"
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "vision.onnx"
    path.write_bytes(model.SerializeToString())
    for place in (tmp_path, path.parent):
        (place / "w.bin").write_bytes(bytes(4))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        load(path)


# ---------------------------------------------------------------- files that are not what they seem


@pytest.mark.parametrize("content", [b"", b"\0" * 72, b"onnx", b"\x08\x09", os.urandom(500)], ids=range(5))
def test_what_is_no_model(tmp_path, content):
    path = tmp_path / "vision.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        load(path)


def test_there_is_no_file(tmp_path):
    for path in (tmp_path / "vision.onnx", tmp_path):
        with pytest.raises(UsageError, match="no such vision tower"):
            load(path)


def huge(kind):
    """A few bytes that speak of 256 GB."""
    big, one = 1 << 18, np.ones(1, np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[big, big])
    if kind == "in the shape of a gemm":
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    elif kind == "in a constant":
        node = helper.make_node("Constant", [], ["y"], value=weight)
    elif kind == "beyond 64 bits":
        weight.dims[:] = [1 << 62, 1 << 62]
    elif kind == "below zero":
        weight.dims[:] = [-1, -1 << 36]
    elif kind == "a little is there":
        weight.raw_data = one.tobytes()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, big]) for name in "xy"]
    held = [] if kind == "in a constant" else [weight]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], held))
    model.ir_version = 9
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 20))
    return model


@pytest.mark.parametrize(
    "kind",
    ["in a weight", "in the shape of a gemm", "in a constant", "beyond 64 bits", "below zero", "a little is there"],
)
def test_a_tiny_file_that_asks_for_256_gb(tmp_path, kind):
    path = tmp_path / "vision.onnx"
    path.write_bytes(huge(kind).SerializeToString())
    assert path.stat().st_size < 200
    with pytest.raises(UsageError):
        load(path)


def test_a_file_of_256_gb_that_is_not_there(tmp_path):
    """A sparse file has the size that it says, and holds nothing: it is refused before it is read."""
    path, content = with_external(tmp_path, "w.bin", length=len(tiny_towers.vision().graph.initializer[0].raw_data) + 1)
    with (tmp_path / "w.bin").open("wb") as opened:
        opened.truncate(len(content))
    with pytest.raises(IntegrityError, match="end beyond"):
        load(path)


@pytest.mark.parametrize("depth", [50, 5000])
def test_graphs_within_graphs(tmp_path, depth):
    """Written by hand: the libraries that would have to serialise it give up before the reader has to."""

    def field(number, content):
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"body") + field(6, graph)
        graph = field(1, field(4, b"Loop") + field(5, attribute))
    path = tmp_path / "vision.onnx"
    path.write_bytes(b"\x08\x09" + field(7, graph) + field(8, b"\x10\x14"))
    with pytest.raises(UsageError):
        load(path)


def test_truncated_anywhere(tmp_path):
    raw = tiny_towers.vision().SerializeToString()
    path = tmp_path / "vision.onnx"
    rng = np.random.default_rng(0)
    for end in sorted({*range(0, 60, 7), *rng.integers(0, len(raw), 60).tolist(), len(raw) - 1}):
        path.write_bytes(raw[:end])
        with pytest.raises(UsageError):
            load(path)


def mutated(raw, rng):
    """Some bits, bytes or spans of a file changed, mostly where the structure is and not in the weights."""
    made = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(made)))
        match rng.integers(4):
            case 0:
                made[at] ^= 1 << int(rng.integers(8))
            case 1:
                made[at] = int(rng.integers(256))
            case 2:
                del made[at : at + int(rng.integers(1, 9))]
            case 3:
                made[at:at] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(made)


def small():
    """A text tower with hardly any weights, so that most of its bytes are structure."""
    ends = [("x", TensorProto.INT64, ["n", "s"]), ("y", TensorProto.FLOAT, ["n", 2])]
    given, made = (helper.make_tensor_value_info(*end) for end in ends)
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=0),
        helper.make_node("Gemm", ["b", "w", "c"], ["d"], transB=1),
        helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(np.ones(2, np.float32))),
        helper.make_node("Mul", ["d", "e"], ["y"]),
    ]
    held = {"table": np.ones((3, 2), np.float32), "axes": np.array([1]), "w": np.ones((2, 2), np.float32)}
    held["c"] = np.zeros(2, np.float32)
    tensors = [numpy_helper.from_array(values, name) for name, values in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [made], tensors), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 9
    return model


def test_mutations_are_refused_or_are_models(tmp_path):
    """Whatever the change, the answer is an error of ours or a model that is one: never a crash, never a hang."""
    raw, path, rng = small().SerializeToString(), tmp_path / "vision.onnx", np.random.default_rng(0)
    path.write_bytes(raw)
    load(path)
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(raw, rng))
        try:
            tower = load(path).towers["vision"]
        except (UsageError, IntegrityError):
            refused += 1
        else:
            tower.graph.SerializeToString()
    assert refused > MUTATIONS / 2


ASKS = """
import resource, sys
import numpy as np
from pathlib import Path
from compress.core.errors import CompressError
from compress.models.onnx_towers import load_onnx
from compress.targets.graph.session import open_session, run
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    opened = open_session(load_onnx({"vision": Path(sys.argv[1])}, {}).towers["vision"].graph)
    run(opened, ["y"], {"x": np.zeros(1, np.float32)})
except CompressError as error:
    print(type(error).__name__)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
def test_a_valid_model_that_fills_the_memory_when_it_runs(tmp_path):
    """In a process with limits; nothing in the file itself gives it away."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([1 << 18, 1 << 18]), "shape")
    model = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [shape],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )  # fmt: skip
    model.ir_version = 9
    path = tmp_path / "vision.onnx"
    path.write_bytes(model.SerializeToString())
    done = subprocess.run([sys.executable, "-c", ASKS, str(path)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("ResourceExhausted", 7), done.stderr[-500:]
