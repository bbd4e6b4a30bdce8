"""Patch tokens out of the exported bytes: the right tensor, the same computation, or the reason why there are none."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_towers
from onnx import helper
from PIL import Image

from compress.core.errors import IntegrityError
from compress.data import runtime
from compress.data.child import Limits
from compress.data.items import Request
from compress.data.session import Encoder
from compress.data.tokens import FULL, NoTokens, Seen, TokenReader
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.gates.outcomes import Unmeasured
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

PAGE = Path(__file__).parents[2] / "docs" / "drop-in.md"
SIDE = tiny_towers.SIDE // tiny_towers.PATCH


def images(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture
def exported(tiny_encoder, tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    onnxruntime_cpu.export(tiny_encoder, folder)
    return folder


def told(folder, **vision):
    """The same folder, with something else said about its vision tower."""
    said = runtime.read(folder)
    tower = said.towers.vision.model_copy(update=vision)
    runtime.write(folder, said.model_copy(update={"towers": said.towers.model_copy(update={"vision": tower})}))
    return folder


def test_plain_towers_are_searched_for_the_sum_after_the_last_block(tiny_encoder):
    assert tiny_encoder.towers["vision"].tokens == "after_mlp"
    assert tiny_encoder.towers["text"].tokens is None


def test_a_tower_that_is_no_plain_residual_one_names_none(tiny_encoder):
    from compress.models.sites import tokens_by_topology

    tower = tiny_encoder.towers["vision"]
    assert tokens_by_topology(tower.graph, [site for site in tower.sites if site.role != "mlp.fc2"]) is None
    tower.graph.graph.node.append(helper.make_node("Identity", ["fc2.product"], ["read_twice"], name="twice"))
    assert tokens_by_topology(tower.graph, tower.sites) is None


@pytest.mark.parametrize("bits", ["float", "int4"])
def test_the_tokens_are_those_of_the_graph_and_nothing_else_changes(tiny_encoder, tmp_path, bits):
    if bits == "int4":
        spec = int4_rtn.Spec.model_validate_json('{"towers": ["vision"]}')
        int4_rtn.apply(tiny_encoder, spec, Context(tiny_towers.feeds))
    onnxruntime_cpu.export(tiny_encoder, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    encoder = Encoder(tmp_path)
    seen = TokenReader(encoder).read(images(5))
    model = onnx.load(tmp_path / encoder.vision.file.file)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="after_mlp"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, encoder.image_feed(images(5)))
    np.testing.assert_allclose(seen.grid.reshape(5, SIDE * SIDE, -1), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.embeddings, encoder.images(images(5)), rtol=1e-6, atol=1e-7)
    assert {path: path.read_bytes() for path in (tmp_path / "onnx").iterdir()} == before


def test_tokens_that_the_file_leaves_out_are_computed_for_who_reads_them(pocket_clip, tmp_path):
    onnxruntime_cpu.export(pocket_clip, tmp_path)
    encoder, tower = Encoder(tmp_path), pocket_clip.towers["vision"]
    plain = onnx.ModelProto()
    plain.CopyFrom(tower.graph)
    plain.graph.output.append(onnx.ValueInfoProto(name=tower.tokens))
    feed = encoder.image_feed(images(3))
    (expected,) = onnxruntime.InferenceSession(plain.SerializeToString()).run([tower.tokens], feed)
    seen = TokenReader(encoder).read(images(3))
    assert expected.shape[1] == seen.grid.shape[1] ** 2 + 1
    np.testing.assert_allclose(seen.grid.reshape(3, -1, expected.shape[2]), expected[:, 1:], atol=1e-5)
    np.testing.assert_allclose(seen.embeddings, encoder.images(images(3)), atol=1e-6)
    written = onnx.load(tmp_path / encoder.vision.file.file)
    written.graph.output.append(onnx.ValueInfoProto(name=tower.tokens))
    (first,) = onnxruntime.InferenceSession(written.SerializeToString()).run([tower.tokens], feed)
    assert first.shape[1] == 1, "the file itself computes the pooled token"


def test_the_page_says_how_to_read_them(pocket_clip, tmp_path, monkeypatch):
    folder = tmp_path / "artifacts" / "released" / "int4_clip"
    folder.mkdir(parents=True)
    onnxruntime_cpu.export(pocket_clip, folder)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    encoder = Encoder(folder)
    told = {"pixels": encoder.image_feed(images(2))[encoder.vision.file.input]}
    exec(code, told)
    seen = TokenReader(encoder).read(images(2))
    np.testing.assert_allclose(told["tokens"][:, 1:].reshape(seen.grid.shape), seen.grid, atol=1e-6)
    np.testing.assert_allclose(told["embeddings"], seen.embeddings, atol=1e-6)


def test_weights_beside_the_file_are_found(exported):
    before = TokenReader(Encoder(exported)).read(images(2))
    path = exported / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="vision_model.onnx_data", size_threshold=200)
    assert (exported / "onnx" / "vision_model.onnx_data").is_file()
    after = TokenReader(Encoder(exported)).read(images(2))
    np.testing.assert_array_equal(after.grid, before.grid)


def test_points_are_looked_up_in_their_patch():
    """A grid of 2: the left upper, right upper, left lower patch and the last point of the image."""
    grid = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    points = np.array([[0, 0, 0], [0, FULL // 2, 0], [0, FULL // 2 - 1, FULL - 1], [0, FULL, FULL]])
    assert Seen(np.empty((1, 0), np.float32), grid).at(points)[:, 0].tolist() == [0, 1, 2, 3]


def test_what_stands_before_the_patches_is_left_out():
    from compress.data import tokens

    rows = np.arange(5, dtype=np.float32).reshape(1, 5, 1)  # a class token and four patches
    assert tokens._grid(rows).ravel().tolist() == [1, 2, 3, 4]
    with pytest.raises(NoTokens, match=r"\(1, 5\)"):
        tokens._grid(rows[:, :, 0])


def test_a_tensor_that_is_not_there_is_refused(exported):
    with pytest.raises(IntegrityError, match="computes no 'elsewhere'"):
        TokenReader(Encoder(told(exported, tokens="elsewhere")))


def probe(items=24):
    task, request = tasks.find("frozen_probe"), Request(items=items)
    return Job(task, request, task.load(request))


def encoded(folder, job):
    return encode(folder, {"probe": job}, How(batch=7, limits=Limits(seconds=120)))["probe"]


def test_the_child_gives_tokens_at_the_points(exported, tmp_path):
    job = probe()
    found = encoded(exported, job)
    points = job.data.points
    assert (found.grid, found.tokens.shape) == (SIDE, (len(points), tiny_towers.WIDTH))
    assert found.images.shape == (len(job.data.ids), tiny_towers.JOINT)
    encoder = Encoder(exported)
    whole = TokenReader(encoder).read([job.data.images[at] for at in range(len(job.data.ids))])
    for at in (0, 17, len(points) - 1):
        image, x, y = points[at]
        expected = whole.grid[image, min(y * SIDE // FULL, SIDE - 1), min(x * SIDE // FULL, SIDE - 1)]
        np.testing.assert_allclose(found.tokens[at], expected, rtol=1e-5, atol=1e-6)
    how = How(batch=7, limits=Limits(seconds=120), cache=tmp_path / "cache")
    for _ in range(2):  # made, then read back
        again = encode(exported, {"probe": job}, how)["probe"]
        np.testing.assert_array_equal(again.tokens, found.tokens)
        assert again.grid == SIDE


def test_an_artifact_that_names_no_tokens_is_unmeasured(exported):
    found = encoded(told(exported, tokens=None), probe())
    assert isinstance(found, Unmeasured)
    assert "does not say where the patch tokens are" in found.reason


def test_a_computation_that_changes_when_it_is_looked_at_gives_no_tokens(exported, monkeypatch):
    from compress.data.child import Channel
    from compress.evals import patches

    job = probe(4)
    other = TokenReader.read

    def swayed(self, chosen):
        seen = other(self, chosen)
        return replace(seen, embeddings=seen.embeddings[::-1])

    monkeypatch.setattr(TokenReader, "read", swayed)
    monkeypatch.setattr(Channel, "done", lambda *_: None)
    with pytest.raises(NoTokens, match="changes what the runtime computes"):
        patches.save(Encoder(exported), job.data, exported / "job", 4, Channel(None))
