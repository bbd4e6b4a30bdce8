"""A pruned model is a model: a folder that `compress` and plain transformers load, prune again, quantize and gate."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_clip
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_weights

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.models import structure
from compress.models.differentiable import DifferentiableTower, write_back
from compress.models.loading import load
from compress.models.structure import Heads, Model, Module, Structure
from compress.pipeline import model, runnable
from compress.pipeline.options import Options
from compress.recipe.sources import NamedModel
from compress.steps.prune import depth, heads, mlp, qk, vo
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.session import open_session

PAGE = Path(__file__).parents[2] / "docs" / "pruning.md"


def loaded(folder):
    return load(NamedModel(source=str(folder)))


def feeds(kind, batches=6):
    rng = np.random.default_rng(0)
    for _ in range(batches):
        if kind == "vision":
            yield {"pixel_values": rng.normal(size=(4, 3, tiny_clip.SIDE, tiny_clip.SIDE)).astype(np.float32)}
        else:
            ids = rng.integers(4, 90, (4, 9))
            ids[:, -1] = 3
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def embedded(encoder, kind):
    (feed,) = feeds(kind, 1)
    return open_session(encoder.towers[kind].graph).run(None, dict(feed))[0]


def written(encoder, folder):
    folder.mkdir()
    onnxruntime_cpu.export(encoder, folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_clip.save(tmp_path_factory.mktemp("pruned") / "original")


@pytest.fixture(scope="module")
def narrow(original, tmp_path_factory):
    """A model pruned in every way there is, differently in each tower, and its folder."""
    encoder, context = loaded(original), Context(feeds)
    qk.apply(encoder, qk.Spec(ratio=0.5, multiple=4, towers=("vision",)), context)
    vo.apply(encoder, vo.Spec(ratio=0.25, multiple=4), context)
    heads.apply(encoder, heads.Spec(ratio=0.5, include=("text:attn.out@0",)), context)
    mlp.apply(encoder, mlp.Spec(ratio=0.25, exclude=("text:mlp.fc1@1",)), context)
    return encoder, written(encoder, tmp_path_factory.mktemp("narrow") / "artifact")


@pytest.fixture(scope="module")
def shallow(original, tmp_path_factory):
    """A model without the first text block and without one MLP of its images, narrowed besides, and its folder."""
    encoder, context = loaded(original), Context(feeds)
    depth.apply(encoder, depth.Spec(blocks=1, towers=("text",)), context)
    depth.apply(encoder, depth.Spec(blocks=1, unit="branch", towers=("vision",)), context)
    mlp.apply(encoder, mlp.Spec(ratio=0.25), context)
    return encoder, written(encoder, tmp_path_factory.mktemp("shallow") / "artifact")


def test_a_shorter_one_is_read_again(shallow, original):
    encoder, folder = shallow
    told = json.loads((folder / layout.STRUCTURE).read_text())
    (layer,) = {path.split(".")[3] for path in told["removed"] if path.startswith("text")}
    start = f"text_model.encoder.layers.{layer}"
    expected = {f"{start}.{name}" for name in ("layer_norm1", "layer_norm2", "mlp", "self_attn")}
    assert {path for path in told["removed"] if path.startswith("text")} == expected
    assert len([path for path in told["removed"] if path.startswith("vision")]) == 2
    assert not any(path.startswith(tuple(told["removed"])) for path in told["modules"])
    held = read_weights((folder / "model.safetensors").read_bytes())
    assert not any(name.startswith(tuple(f"{path}." for path in told["removed"])) for name in held)
    again = loaded(folder)
    for kind, tower in encoder.towers.items():
        assert embedded(again, kind) == pytest.approx(embedded(encoder, kind), abs=1e-5)
        assert {site.name: site.shape for site in again.towers[kind].sites} == {
            site.name: site.shape for site in tower.sites
        }
    assert again.parameters < 0.8 * loaded(original).parameters


def test_trained_weights_of_all_kinds_are_read_again(original, tmp_path):
    encoder = loaded(original)
    mlp.apply(encoder, mlp.Spec(ratio=0.25), Context(feeds))
    for tower in encoder.towers.values():
        module = DifferentiableTower(tower)
        with torch.no_grad():
            for weight in module.weights().values():
                weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        write_back(tower, module)
    again = loaded(written(encoder, tmp_path / "artifact"))
    for kind in encoder.towers:
        assert embedded(again, kind) == pytest.approx(embedded(encoder, kind), abs=1e-5)


def test_it_is_read_again(narrow, original):
    encoder, folder = narrow
    again = loaded(folder)
    for kind, tower in encoder.towers.items():
        assert embedded(again, kind) == pytest.approx(embedded(encoder, kind), abs=1e-5)
        shapes = {site.name: site.shape for site in tower.sites}
        assert {site.name: site.shape for site in again.towers[kind].sites} == shapes
    assert again.parameters < loaded(original).parameters
    assert again.export_error < 1e-5
    told = json.loads((folder / layout.STRUCTURE).read_text())
    assert told["origin"] == {"source": "./original", "revision": None}
    assert told["attentions"]["vision_model.encoder.layers.0.self_attn"] == {
        "heads": 2, "query_width": 8, "value_width": 12,
    }  # fmt: skip
    assert told["attentions"]["text_model.encoder.layers.0.self_attn"]["heads"] == 1
    assert "text_model.encoder.layers.1.mlp.fc1" not in told["modules"]
    assert str(original.parent) not in (folder / layout.STRUCTURE).read_text()


@pytest.mark.parametrize("cut", ["narrow", "shallow"])
def test_plain_transformers_reads_it_as_the_page_shows(cut, request):
    encoder, folder = request.getfixturevalue(cut)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    told = {}
    exec(compile(code, str(PAGE), "exec"), told)
    plain = told["load_pruned"](folder)
    for kind in ("vision", "text"):
        (feed,) = feeds(kind, 1)
        with torch.no_grad():
            given_ = {name: torch.from_numpy(value) for name, value in feed.items()}
            body, projection = {
                "vision": (plain.vision_model, plain.visual_projection),
                "text": (plain.text_model, plain.text_projection),
            }[kind]
            found = projection(body(**given_).pooler_output).numpy()
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        assert found == pytest.approx(embedded(encoder, kind), abs=1e-5)


@pytest.mark.slow
def test_one_width_in_all_layers_needs_nothing_but_transformers(original, tmp_path):
    encoder = loaded(original)
    mlp.apply(encoder, mlp.Spec(ratio=0.25), Context(feeds))
    folder = written(encoder, tmp_path / "uniform")
    plain = transformers.CLIPModel.from_pretrained(folder).eval()
    assert plain.config.vision_config.intermediate_size == plain.config.text_config.intermediate_size == 48
    (feed,) = feeds("vision", 1)
    with torch.no_grad():
        states = plain.vision_model(torch.from_numpy(feed["pixel_values"])).pooler_output
        found = plain.visual_projection(states).numpy()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert found == pytest.approx(embedded(encoder, "vision"), abs=1e-5)


@pytest.mark.slow
def test_it_is_pruned_again_and_held_against_the_original(narrow, original, tmp_path, monkeypatch):
    _, folder = narrow
    again = loaded(folder)
    mlp.apply(again, mlp.Spec(ratio=0.5, towers=("vision",)), Context(feeds))
    twice = loaded(written(again, tmp_path / "twice"))
    for kind in ("vision", "text"):
        assert embedded(twice, kind) == pytest.approx(embedded(again, kind), abs=1e-5)
    assert twice.origin.structure.origin.source == "./original"
    against = model.original(twice, offline=True, roots=(original.parent,))
    assert embedded(against, "vision") == pytest.approx(embedded(loaded(original), "vision"), abs=1e-6)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="pruned from cannot be read"):
        model.original(twice, offline=True)
    with pytest.raises(UsageError, match="has to be an original"):
        runnable.reference(str(folder), Options(output=tmp_path))


@pytest.mark.slow
def test_a_quantized_one_holds_no_float_weights(original, tmp_path):
    encoder = loaded(original)
    mlp.apply(encoder, mlp.Spec(ratio=0.25), Context(feeds))
    int4_rtn.apply(encoder, int4_rtn.Spec(), Context())
    folder = written(encoder, tmp_path / "small")
    assert (folder / layout.STRUCTURE).is_file()
    assert not (folder / "model.safetensors").exists()


def test_a_model_that_was_not_pruned_has_no_structure(original, tmp_path):
    folder = written(loaded(original), tmp_path / "float")
    assert not (folder / layout.STRUCTURE).exists()
    assert not (folder / "model.safetensors").exists()


def test_the_same_model_gives_the_same_bytes(narrow, tmp_path):
    encoder, folder = narrow
    second = written(encoder, tmp_path / "second")
    for name in (layout.STRUCTURE, "model.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (second / name).read_bytes()
    assert read_weights((folder / "model.safetensors").read_bytes())["logit_scale"].shape == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 2}, "must be 1"),
        ({"extra": 1}, "extra"),
        ({"architecture": "OtherModel"}, "structure of a OtherModel"),
        ({"modules": {"vision_model.nowhere": {"outputs": 1, "inputs": 1, "bias": True}}}, "no module"),
        ({"modules": {"vision_model": {"outputs": 1, "inputs": 1, "bias": True}}}, "no linear layer"),
        ({"modules": {}}, "cannot be loaded"),
        ({"attentions": {"vision_model.nowhere": {"heads": 1, "query_width": 1, "value_width": 1}}}, "no module"),
        ({"attentions": {"visual_projection": {"heads": 1, "query_width": 1, "value_width": 1}}}, "no attention"),
        ({"removed": ["vision_model.encoder.layers.9.mlp"]}, "no module"),
        ({"removed": ["vision_model.encoder"]}, "no part that a block can lose"),
        ({"removed": ["vision_model.encoder.layers.0.mlp"]}, "goes with"),
    ],
    ids=str,
)
def test_a_structure_that_does_not_fit(narrow, tmp_path, change, match):
    import shutil

    folder = tmp_path / "bad"
    shutil.copytree(narrow[1], folder)
    told = json.loads((folder / layout.STRUCTURE).read_text())
    (folder / layout.STRUCTURE).write_text(json.dumps({**told, **change}))
    with pytest.raises(UsageError, match=match):
        loaded(folder)


names_ = st.text("abcdefgh._0123456789", min_size=1, max_size=30)
sizes = st.integers(1, 10**6)


@given(
    st.dictionaries(names_, st.builds(Module, outputs=sizes, inputs=sizes, bias=st.booleans()), max_size=5),
    st.dictionaries(names_, st.builds(Heads, heads=sizes, query_width=sizes, value_width=sizes), max_size=5),
    st.one_of(st.none(), names_),
    st.lists(names_, max_size=4),
)
def test_a_structure_is_read_as_it_was_written(tmp_path_factory, modules, attentions, revision, removed):
    made = Structure(
        version=1, architecture="CLIPModel", origin=Model(source="some/model", revision=revision),
        modules=modules, attentions=attentions, removed=removed,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("structure")
    assert structure.read(folder) is None
    (folder / "compress").mkdir()
    (folder / layout.STRUCTURE).write_bytes(made.to_bytes())
    assert structure.read(folder) == made
