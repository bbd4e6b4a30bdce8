"""A CLIP's towers as ONNX: the same embeddings for any batch, length and padding, and the same bytes every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import clip_sample
import numpy as np
import pytest
import torch
from onnx import TensorProto

from compress.core.errors import IntegrityError, UsageError
from compress.models.graph import initializers
from compress.models.sites import by_topology
from compress.targets.graph.session import open_session

CASES = {"gelu": {"act": "gelu", "eos": 3}, "legacy": {"act": "quick_gelu", "eos": 2}}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A model, its end token, and what is loaded of it: one from shards in float32, one from one file in bfloat16."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = clip_sample.model(**CASES[request.param])
    if request.param == "gelu":
        model.save_pretrained(folder, max_shard_size="20KB")
    else:
        model = model.to(torch.bfloat16)
        model.save_pretrained(folder)
        model = model.to(torch.float32)
    end = 3 if request.param == "gelu" else clip_sample.VOCABULARY - 1  # legacy models pool at the largest id
    return model, end, clip_sample.loaded(folder), folder


def towers(case):
    return case[2].towers


def texts(end, lengths, padded):
    """Ids that end with the end token after `lengths` tokens, padded with 0, and their mask."""
    rng = np.random.default_rng(0)
    ids, mask = np.zeros((len(lengths), padded), np.int64), np.zeros((len(lengths), padded), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(5, 30, length)
        ids[row, length - 1], mask[row, :length] = end, 1
    return {"input_ids": ids, "attention_mask": mask}


def run(tower, feed):
    (embeds,) = open_session(tower.graph).run(None, {name: feed[name] for name in tower.inputs})
    return embeds


def unit(values):
    return (values / values.norm(dim=-1, keepdim=True)).numpy()


def test_how_it_was_stored(case):
    *_, folder = case
    shards = list(folder.glob("model-*.safetensors"))
    assert (
        bool(shards)
        == (folder / "model.safetensors.index.json").is_file()
        == (not (folder / "model.safetensors").is_file())
    )
    dtype = json.loads((folder / "config.json").read_text())["dtype"]
    assert dtype == ("float32" if shards else "bfloat16")


def test_the_difference_to_the_framework_is_small(case):
    assert case[2].export_error <= 1e-4


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_images(case, batch):
    pixels = np.random.default_rng(batch).normal(size=(batch, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        model = case[0]
        expected = unit(model.visual_projection(model.vision_model(torch.from_numpy(pixels)).pooler_output))
    got = run(towers(case)["vision"], {"pixel_values": pixels})
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("lengths", [[3], [7, 2, 5], [16, 16]], ids=str)
def test_texts_of_any_length(case, lengths):
    model, end, *_ = case
    feed = texts(end, lengths, max(lengths))
    with torch.no_grad():
        told = {name: torch.from_numpy(values) for name, values in feed.items()}
        expected = unit(model.text_projection(model.text_model(**told).pooler_output))
    np.testing.assert_allclose(run(towers(case)["text"], feed), expected, atol=1e-4)


def test_padding_changes_no_embedding(case):
    """What `padding: longest` rests on."""
    tower, end = towers(case)["text"], case[1]
    assert case[2].preprocess["padding"] == "longest"
    made = [run(tower, texts(end, [4, 6], padded)) for padded in (6, 9, 16)]
    assert np.abs(made[0][0] - made[0][1]).max() > 1e-2, "different texts have to differ for this to say anything"
    for each in made[1:]:
        np.testing.assert_allclose(each, made[0], atol=1e-5)


def test_batches_do_not_mix(case):
    tower, feed = towers(case)["text"], texts(case[1], [4, 6, 5], 6)
    together = run(tower, feed)
    for row in range(3):
        alone = run(tower, {name: values[row : row + 1] for name, values in feed.items()})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_module_paths_and_topology_find_the_same_sites(case, kind):
    tower = towers(case)[kind]

    def seen(sites):
        return {(site.node, site.role, site.layer, site.op, site.weight, site.shape) for site in sites}

    assert seen(tower.sites) == seen(by_topology(tower.graph))
    per_block = ["attn.qkv"] * 3 + ["attn.out", "mlp.fc1", "mlp.fc2"]
    for layer in (0, 1):
        assert sorted(site.role for site in tower.sites if site.layer == layer) == sorted(per_block)
    first = {"vision": "patch_embed", "text": "embedding"}[kind]
    assert {site.role for site in tower.sites if site.layer is None} == {first, "projection"}
    assert len({site.name for site in tower.sites}) == len(tower.sites)


def test_weights_are_those_of_the_model_in_float32(case):
    model = case[0]
    for tower in towers(case).values():
        tensors = initializers(tower.graph)
        assert {tensors[site.weight].data_type for site in tower.sites} == {TensorProto.FLOAT}
        for site in tower.sites:
            expected = model.get_parameter(f"{site.name}.weight").detach().numpy()
            held = np.frombuffer(tensors[site.weight].raw_data, np.float32).reshape(site.shape)
            np.testing.assert_array_equal(held, expected.T if site.op == "MatMul" else expected)


def test_nothing_of_the_machine_is_in_the_graph(case):
    for tower in towers(case).values():
        raw = tower.graph.SerializeToString()
        for trace in (b"site-packages", b"/home", str(Path.cwd()).encode(), b"stack_trace", b".py", b"self."):
            assert trace not in raw
        assert not tower.graph.graph.value_info


def test_what_an_artifact_needs(case):
    model, _, encoder, _ = case
    assert encoder.parameters == sum(weight.numel() for weight in model.parameters())
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())
    config = json.loads(encoder.files["config.json"])
    assert "_name_or_path" not in config
    assert config["dtype"] == "float32"


@pytest.mark.parametrize("what", ["truncated", "a weight is missing", "a weight of another shape", "no architecture"])
def test_folders_that_do_not_hold_the_model(tmp_path, what):
    from safetensors.torch import load_file, save_file

    clip_sample.model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif what == "no architecture":
        (tmp_path / "config.json").write_text('{"architectures": {"a": 1}, "model_type": "clap"}')
    else:
        weights = load_file(file)
        name = "text_model.encoder.layers.0.mlp.fc1.weight"
        held = weights.pop(name)
        if what == "a weight of another shape":
            weights[name] = held[:, :-1].contiguous()
        save_file(weights, file, {"format": "pt"})
    said = {
        "truncated": (IntegrityError, "is cut off"),
        "a weight is missing": (UsageError, r"the weights lack text_model\.encoder"),
        "a weight of another shape": (UsageError, "transformers cannot load the model"),
        "no architecture": (UsageError, "no model family"),
    }
    error, words = said[what]
    with pytest.raises(error, match=words):
        clip_sample.loaded(tmp_path)


@pytest.mark.slow
def test_the_bytes_depend_on_nothing_else(tmp_path):
    clip_sample.model().save_pretrained(tmp_path / "model")
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import clip_sample;"
        "made = clip_sample.loaded(sys.argv[2]).towers.values();"
        "print([hashlib.sha256(t.graph.SerializeToString(deterministic=True)).hexdigest() for t in made])"
    )
    told = set()
    for seed in ("0", "4711"):
        (tmp_path / seed).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "model")],
            cwd=tmp_path / seed, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        told.add(done.stdout)
    assert len(told) == 1
    assert len(told.pop()) > 128
