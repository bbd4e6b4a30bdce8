"""A tower cut between its blocks computes what it computes whole, and is written with weights from files."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_towers
from onnx import TensorProto
from referred import referring

from compress.models import external_data
from compress.models.segments import segments
from compress.targets.graph.types import element_types


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_towers.encoder(tmp_path_factory.mktemp("towers"))


def computed(model, feed, wanted):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    return dict(zip(wanted, session.run(list(wanted), {k: v for k, v in feed.items() if k in taken}), strict=True))


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_segments_one_after_the_other_are_the_tower(encoder, kind):
    tower = encoder.towers[kind]
    cut = segments(tower.graph, tower.sites)
    assert [segment.layer for segment in cut] == [None, 0, None]
    assert [site for segment in cut for site in segment.sites] == list(tower.sites)
    assert cut[1].outputs == ("after_mlp",)  # the stream alone, and not the branches beside it
    types = element_types(tower.graph)
    feed = next(tiny_towers.feeds(kind))
    whole = computed(tower.graph, feed, [tower.output])
    values = dict(feed)
    for segment in cut:
        held = {name: values[name] for name in segment.inputs}
        values = held | computed(segment.graph(tower.graph, types), held, segment.made)
    assert np.allclose(values[tower.output], whole[tower.output], atol=1e-6)


def test_a_graph_without_blocks_is_one_segment(encoder):
    tower = encoder.towers["vision"]
    (only,) = segments(tower.graph, [site for site in tower.sites if site.layer is None])
    assert only.inputs == tower.inputs
    assert only.outputs == (tower.output,)


@pytest.mark.parametrize("above", [1 << 30, 1], ids=["inside", "beside"])
def test_what_lies_in_files_is_written_as_what_is_held(encoder, tmp_path, above):
    tower = encoder.towers["vision"]
    large = referring(tower, tmp_path / "w.safetensors")
    assert large.streamed
    assert not tower.streamed
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    external_data.save(tower.graph, tmp_path / "a" / "m.onnx", above)
    external_data.save(large.graph, tmp_path / "b" / "m.onnx", above)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len(files) == (1 if above > 1 else 2)
    session = onnxruntime.InferenceSession(str(tmp_path / "b" / "m.onnx"), providers=["CPUExecutionProvider"])
    feed = next(tiny_towers.feeds("vision"))
    assert np.allclose(session.run(None, feed)[0], computed(tower.graph, feed, [tower.output])[tower.output], atol=1e-6)


def test_a_written_model_is_referred_to_after_it_was_checked(encoder, tmp_path):
    tower = encoder.towers["vision"]
    external_data.save(tower.graph, tmp_path / "m.onnx", 1)
    model = external_data.referring(tmp_path / "m.onnx")
    (tmp_path / "again").mkdir()
    external_data.save(model, tmp_path / "again" / "m.onnx", 1 << 30)
    whole = onnx.load(tmp_path / "again" / "m.onnx")
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in whole.graph.initializer)
    assert {t.name: t.raw_data for t in whole.graph.initializer if t.raw_data} == {
        t.name: t.raw_data for t in tower.graph.graph.initializer if t.raw_data
    }
