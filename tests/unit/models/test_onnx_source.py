"""Towers from ONNX files: inputs, outputs, sites by what they compute, and the real ones beside the repository."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_towers
from onnx import TensorProto, helper

from compress.core.errors import UsageError
from compress.models import external_data
from compress.models.onnx_towers import load_onnx
from compress.models.sites import by_topology
from compress.recipe.selector import ROLES
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.session import open_session


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_hand_made_towers(tmp_path):
    files = tiny_towers.write(tmp_path)
    encoder = load_onnx(files, {"kind": "plain"}, 12.5, normalized=True)
    assert (encoder.logit_scale, encoder.normalized, encoder.export_error) == (12.5, True, None)
    for kind, given, made in (("vision", "pixel_values", "image_embeds"), ("text", "input_ids", "text_embeds")):
        tower = encoder.towers[kind]
        assert (tower.kind, tower.inputs, tower.output) == (kind, (given,), made)
        (feed,) = tiny_towers.feeds(kind, 1)
        np.testing.assert_allclose(
            open_session(tower.graph).run(None, feed)[0], session(files[kind]).run(None, feed)[0], atol=1e-6
        )
    assert encoder.parameters == sum(
        np.prod(tensor.dims) for kind in files for tensor in onnx.load(files[kind]).graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    )  # fmt: skip


def test_roles_of_a_block_told_by_what_stands_around_them(tmp_path):
    encoder = load_onnx(tiny_towers.write(tmp_path), {})
    roles = {site.weight: (site.role, site.layer) for tower in encoder.towers.values() for site in tower.sites}
    block = {f"{name}.weight": ("attn.qkv", 0) for name in "qkv"}
    block |= {"out.weight": ("attn.out", 0), "fc1.weight": ("mlp.fc1", 0), "fc2.weight": ("mlp.fc2", 0)}
    outside = {"patch.weight": "patch_embed", "table": "embedding", "projection.weight": "projection"}
    assert roles == block | {weight: (role, None) for weight, role in outside.items()}


def test_two_outputs(tmp_path):
    model = tiny_towers.vision()
    model.graph.output.append(helper.make_tensor_value_info("pooled", TensorProto.FLOAT, None))
    path = tmp_path / "vision.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError):
        load_onnx({"vision": path}, {})


def test_an_opset_that_is_too_old(tmp_path):
    model = tiny_towers.text()
    del model.graph.node[1:]  # all but the Gather, which opset 11 knows
    model.graph.output[0].name = model.graph.node[0].output[0]
    model.opset_import[0].version = 11
    path = tmp_path / "text.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="opset 11 is not supported"):
        load_onnx({"text": path}, {})


def test_weights_beside_the_file_or_in_it_give_the_same_tower(tmp_path, monkeypatch):
    """`external_data.save` writes them beside it above 2 GB."""
    monkeypatch.setattr(external_data, "ABOVE", 1000)
    external_data.save(tiny_towers.vision(), tmp_path / "large.onnx")
    files = [tiny_towers.write(tmp_path)["vision"], tmp_path / "large.onnx"]
    plain, read = (load_onnx({"vision": file}, {}).towers["vision"].graph for file in files)
    assert read.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


# ---------------------------------------------------------------- the real towers

PREPROCESS = {
    "kind": "plain", "image": {"size": [80, 80]}, "text": {"tokenizer": "bytes", "length": 32},
}  # fmt: skip


@pytest.fixture
def mira(real_data):
    folder = real_data / "models" / "mira_clip"
    return load_onnx(
        {"vision": folder / "image_encoder.onnx", "text": folder / "text_encoder.onnx"}, PREPROCESS, 18.333527
    )


def real_feeds(kind):
    rng = np.random.default_rng(0)
    for _ in range(2):
        if kind == "vision":
            yield {"pixel_values": rng.uniform(size=(4, 3, 80, 80)).astype(np.float32)}
        else:
            ids = rng.integers(97, 123, (4, 32))
            ids[:, 0], ids[:, 20], ids[:, 21:] = 2, 3, 0
            yield {"input_ids": ids}


@pytest.mark.real
def test_real_towers_have_eight_blocks(mira):
    for kind, tower in mira.towers.items():
        roles = Counter(site.role for site in tower.sites)
        first = {"vision": "patch_embed", "text": "embedding"}[kind]
        assert roles == {"attn.qkv": 8, "attn.out": 8, "mlp.fc1": 8, "mlp.fc2": 8, first: 1, "projection": 1}
        assert Counter(site.layer for site in tower.sites) == {**dict.fromkeys(range(8), 4), None: 2}
        assert {site.role for site in tower.sites} <= set(ROLES)
        assert by_topology(tower.graph) == tower.sites


@pytest.mark.real
@pytest.mark.parametrize("method", [int4_rtn, int8_static], ids=lambda method: method.__name__.rsplit(".", 1)[-1])
def test_real_towers_are_quantized_exported_and_run(mira, tmp_path, method):
    context = Context(real_feeds)
    reference = {kind: open_session(tower.graph) for kind, tower in mira.towers.items()}
    report = method.apply(mira, method.Spec(), context)
    assert len(report.rows) == 2 * (4 * 8 + 1)
    files = onnxruntime_cpu.export(mira, tmp_path)
    for kind, path in files.items():
        feed = next(real_feeds(kind))
        (got,), (expected,) = open_session(path).run(None, feed), reference[kind].run(None, feed)
        cosine = (got * expected).sum(1)
        assert np.isfinite(got).all()
        assert 0.5 < cosine.min() < cosine.max() <= 1 + 1e-5
    for planned, found in onnxruntime_cpu.counts(mira, files).values():
        assert planned == found
