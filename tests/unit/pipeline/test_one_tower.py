"""A recognizer and a classifier: one ONNX tower, whose output is no embedding, from the recipe to the scores."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.data.child import Limits
from compress.data.items import Request
from compress.evals.encode import How, Job, encode
from compress.evals.task import find, read
from compress.gates.outcomes import Unmeasured
from compress.models.onnx_towers import load_onnx
from compress.pipeline import model
from compress.recipe.sources import OnnxModel
from compress.steps.quantize import gptq, int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph import census
from compress.targets.graph.emitter import emit
from compress.targets.graph.session import open_session

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def onnx_file(path, nodes, weights, output):
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 4, 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "g", [given], [made], tensors)
    saved = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    saved.ir_version = 8
    onnx.save(saved, path)
    return path


@pytest.fixture
def reader(tmp_path):
    """Says the colour of each half of an image: (n, 4 classes, 2 steps), the last class is the blank."""
    kernel = np.zeros((4, 3, 4, 4), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = 1 / 16
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["c"], strides=[4, 4]),
        helper.make_node("Squeeze", ["c", "axis"], ["y"]),
    ]
    weights = {"kernel": kernel, "axis": np.array([2], np.int64)}
    return onnx_file(tmp_path / "reader.onnx", nodes, weights, ["n", 4, 2])


def source(path):
    preprocess = {"image": {"size": (4, 8), "fit": "stretch"}}
    return OnnxModel.model_validate(
        {"source": "onnx", "vision": str(path), "preprocess": preprocess, "normalize": False}
    )


@pytest.fixture
def shelf(tmp_path):
    """Images of two colours side by side; the last says another text than it shows."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    lines = []
    for at, (text, shown) in enumerate([("RG", "RG"), ("GB", "GB"), ("BR", "BR"), ("RB", "RG")]):
        image = Image.new("RGB", (8, 4))
        for half, char in enumerate(shown):
            image.paste(COLOURS["RGB".index(char)], (4 * half, 0, 4 * half + 4, 4))
        image.save(folder / f"{at}.png")
        lines.append(json.dumps({"file": f"{at}.png", "text": text}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    task = tmp_path / "halves.yaml"
    task.write_text(
        "version: 1\nname: halves\nkind: transcription\ndescription: two colours\n"
        "data: {source: folder, path: shelf, columns: [text]}\nalphabet: RGB\nblank: 3\n"
        "metrics: {exact: both, character_accuracy: each}\n"
    )
    return read(task)


def test_a_recognizer_is_loaded_written_and_scored(reader, shelf, tmp_path):
    encoder = model.load(source(reader), tmp_path / "recipe.yaml", offline=True)
    assert list(encoder.towers) == ["vision"]
    out = tmp_path / "out"
    onnxruntime_cpu.export(encoder, out)
    request = Request("all", roots=(tmp_path,))
    job = Job(shelf, request, shelf.load(request))
    texts = find("reading")
    other = Job(texts, Request(items=4), texts.load(Request(items=4)))
    made = encode(out, {"halves": job, "reading": other}, How(limits=Limits(60)))
    found = made["halves"]
    assert found.images.shape == (4, 8)
    assert found.texts.shape == (0, 0)
    assert found.batch_cosine == pytest.approx(1)
    measured = shelf.measure(job.data, found, found)
    assert measured["exact"].candidate.tolist() == [1, 1, 1, 0]
    assert measured["character_accuracy"].candidate.tolist() == [1, 1, 1, 0.5]
    assert not isinstance(made["reading"], Unmeasured)
    with pytest.raises(Exception, match="no common space"):  # a recognizer cannot answer by similarity
        texts.measure(other.data, made["reading"], made["reading"])


@pytest.fixture
def convolutions(tmp_path):
    """Two convolutions, padded and with strides, before a classifier."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["pixels", "stem", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "first"], ["c"], pads=[0, 1, 1, 0], strides=[1, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "second"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("ReduceMean", ["f"], ["g"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["g", "head"], ["y"]),
    ]
    shapes = {"stem": (8, 3, 3, 3), "bias": (8,), "first": (16, 8, 3, 3), "second": (12, 16, 1, 3), "head": (12, 10)}
    weights = {name: rng.normal(size=shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    path = onnx_file(tmp_path / "net.onnx", nodes, weights, ["n", 10])
    return load_onnx({"vision": path}, {"kind": "plain", "image": {"size": [4, 8]}})


def feeds(kind):
    rng = np.random.default_rng(1)
    for _ in range(3):
        yield {"pixels": rng.normal(size=(8, 3, 4, 8)).astype(np.float32)}


def test_roles_of_a_convolutional_network(convolutions):
    tower = convolutions.towers["vision"]
    assert [(site.role, site.layer) for site in tower.sites] == [
        ("patch_embed", None), ("conv", 0), ("conv", 1), ("projection", None),
    ]  # fmt: skip


def drift(tower):
    feed = next(feeds("vision"))
    (old,), (new,) = (open_session(graph).run(None, feed) for graph in (tower.graph, emit(tower)))
    return float(np.linalg.norm(new - old) / np.linalg.norm(old))


def test_compensation_helps_kernels_too(convolutions):
    tower, context = convolutions.towers["vision"], Context(feeds, Silent(), 0)
    int4_rtn.apply(convolutions, int4_rtn.Spec(include=("conv",)), context)
    plain = drift(tower)
    report = gptq.apply(convolutions, gptq.Spec(include=("conv",), damping=0.001), context)
    assert [row.role for row in report.rows] == ["conv", "conv"]
    assert 0 < drift(tower) < plain < 0.3
    planned = census.planned(tower)
    assert planned == census.found(emit(tower), tower)
    assert planned == {"float product": "2", "int4 kernel in blocks of 32": "2"}


def test_one_convolution_of_many(convolutions):
    int4_rtn.apply(convolutions, int4_rtn.Spec(include=("conv@-1",)), Context(None, Silent(), 0))
    tower = convolutions.towers["vision"]
    assert [tower.site(name).layer for name in tower.treatments] == [1]


def test_what_convolutions_cannot_have_is_refused(convolutions, tmp_path):
    with pytest.raises(UsageError, match=r"there is vision:conv@0\.\.1, vision:patch_embed, vision:projection"):
        int4_rtn.apply(convolutions, int4_rtn.Spec(include=("mlp.fc1",)), Context(None, Silent(), 0))
    int8_static.apply(convolutions, int8_static.Spec(include=("conv",)), Context(feeds, Silent(), 0))
    with pytest.raises(UsageError, match="integer inputs") as caught:
        onnxruntime_cpu.export(convolutions, tmp_path / "out")
    assert "leave conv out of this step" in caught.value.hint
