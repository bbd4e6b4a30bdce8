"""Target torch: folders of safetensors, float or of bitsandbytes, that compress and plain transformers load alike."""

import json
import struct

import numpy as np
import pytest
import tiny_clip
import torch
import transformers
from PIL import Image

from compress import targets
from compress.cli.main import main
from compress.core.errors import IntegrityError, UsageError
from compress.data import runtime
from compress.data.session import Encoder
from compress.evals.worker import batch_cosine
from compress.models import bnb_weights
from compress.models.loading import load
from compress.pipeline import rescue, tower_contents
from compress.recipe.sources import NamedModel
from compress.report.contents import lines
from compress.steps.prune import mlp
from compress.steps.quantize import bnb, int4_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore")
TORCH = targets.load("torch")
RNG = np.random.default_rng(0)


def loaded(folder):
    return load(NamedModel(source=str(folder)))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return loaded(tiny_clip.save(tmp_path_factory.mktemp("tiny") / "clip", width=64))


@pytest.fixture
def encoder(original):
    return rescue.copied(original)


def pictures(count=5):
    return [Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(count)]


TEXTS = ["A b c", "x", "code 1 7 Z"]


def written(encoder, folder, target=TORCH):
    folder.mkdir()
    return target.export(encoder, folder)


def treated(encoder, weights, **options):
    return bnb.apply(encoder, bnb.Spec(weights=weights, **options), Context())


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_the_weight_is_what_bitsandbytes_itself_makes_of_it(kind):
    from bitsandbytes import functional

    weight = RNG.normal(size=(48, 40)).astype(np.float32)
    held = bnb.rounded(weight, kind, 64)
    if kind == "int8":
        expected = functional.int8_vectorwise_dequant(*functional.int8_vectorwise_quant(torch.from_numpy(weight))[:2])
    else:
        expected = functional.dequantize_4bit(
            *functional.quantize_4bit(torch.from_numpy(weight), blocksize=64, quant_type=kind)
        )
    np.testing.assert_allclose(held.dequantized(), expected.numpy(), rtol=1e-6)


def test_float_weights_give_the_embeddings_of_the_onnx_reference(encoder, tmp_path):
    written(encoder, tmp_path / "torch")
    written(encoder, tmp_path / "onnx", onnxruntime_cpu)
    images = pictures()
    ours, reference = Encoder(tmp_path / "torch"), Encoder(tmp_path / "onnx")
    np.testing.assert_allclose(ours.images(images), reference.images(images), atol=2e-5)
    np.testing.assert_allclose(ours.texts(TEXTS), reference.texts(TEXTS), atol=2e-5)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_bitsandbytes_weights_reload_in_compress_and_in_plain_transformers(encoder, tmp_path, kind):
    images = pictures()
    written(encoder, tmp_path / "float")
    reference = Encoder(tmp_path / "float").images(images)
    report = treated(encoder, kind)
    files = written(encoder, tmp_path / "a")
    written(encoder, tmp_path / "b")
    planned, found = TORCH.counts(encoder, files)["vision"]
    assert planned == found
    assert planned[f"{kind} linear"] == "12"
    assert {path.name for path in files.values()} == {f"{tower}_model_{kind}.safetensors" for tower in files}
    assert all(path.read_bytes() == (tmp_path / "b" / "torch" / path.name).read_bytes() for path in files.values())
    assert not list((tmp_path / "a").rglob("*.bin")) + list((tmp_path / "a").rglob("*.pt"))
    assert sum(row.bytes_after for row in report.rows) < sum(row.bytes_before for row in report.rows) / 3
    ours = Encoder(tmp_path / "a")
    made = ours.images(images)
    assert not np.array_equal(made, reference)
    assert cosines(made, reference).min() > 0.98
    plain = transformers.CLIPModel.from_pretrained(tmp_path / "a", dtype="float32", local_files_only=True).eval()
    pixels = torch.from_numpy(ours.image_feed(images)["pixel_values"])
    with torch.inference_mode():
        theirs = plain.visual_projection(plain.vision_model(pixels).pooler_output).float().numpy()
    assert cosines(made, theirs).min() > 0.99999


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_item_does_not_depend_on_its_neighbours(encoder, tmp_path, kind):
    treated(encoder, kind)
    written(encoder, tmp_path / "a")
    assert batch_cosine(Encoder(tmp_path / "a").images, pictures(6)) > 0.999999


def test_pruned_models_are_written_in_float_and_in_four_bits(encoder, tmp_path):
    mlp.apply(encoder, mlp.Spec(ratio=0.5), Context(feeds))
    written(encoder, tmp_path / "float")
    written(encoder, tmp_path / "onnx", onnxruntime_cpu)
    images = pictures()
    float_ = Encoder(tmp_path / "float").images(images)
    np.testing.assert_allclose(float_, Encoder(tmp_path / "onnx").images(images), atol=2e-5)
    treated(encoder, "nf4")
    written(encoder, tmp_path / "nf4")
    assert cosines(Encoder(tmp_path / "nf4").images(images), float_).min() > 0.98


def feeds(kind):
    for _ in range(6):
        if kind == "vision":
            yield {"pixel_values": RNG.normal(size=(4, 3, tiny_clip.SIDE, tiny_clip.SIDE)).astype(np.float32)}
        else:
            ids = RNG.integers(4, 90, (4, 9))
            ids[:, -1] = 3
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_what_torch_has_no_layer_for_is_refused(encoder, tmp_path, tiny_encoder):
    int4_rtn.apply(encoder, int4_rtn.Spec(include=("mlp.fc1",)), Context())
    with pytest.raises(UsageError, match="BlockWeights is no layer"):
        TORCH.export(encoder, tmp_path)
    with pytest.raises(UsageError, match="came as ONNX"):
        TORCH.export(tiny_encoder, tmp_path)


def test_onnx_refuses_bitsandbytes_and_names_what_serves_it(encoder, tmp_path):
    treated(encoder, "nf4")
    with pytest.raises(UsageError) as told:
        onnxruntime_cpu.export(encoder, tmp_path)
    assert "quantize.gptq" in told.value.hint


def test_two_kinds_in_one_model_are_refused(encoder, tmp_path):
    treated(encoder, "nf4", include=("mlp.fc1",))
    treated(encoder, "fp4", include=("mlp.fc2",))
    with pytest.raises(UsageError, match="fp4 and nf4 in one model"):
        TORCH.export(encoder, tmp_path)


def test_a_shard_that_lacks_a_weight_does_not_open(encoder, tmp_path):
    from safetensors.numpy import load_file

    treated(encoder, "nf4")
    files = written(encoder, tmp_path / "a")
    held = load_file(files["vision"])
    del held["visual_projection.weight"]
    bnb_weights.save(held, files["vision"])
    with pytest.raises(IntegrityError, match="visual_projection"):
        Encoder(tmp_path / "a")
    planned, found = TORCH.counts(encoder, files)["vision"]
    assert planned != found


def test_the_runtime_file_says_what_is_opened(encoder, tmp_path):
    written(encoder, tmp_path / "a")
    told = runtime.read(tmp_path / "a")
    assert (told.target, told.towers.vision.file) == ("torch", "torch/vision_model.safetensors")
    index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"torch/vision_model.safetensors", "torch/text_model.safetensors"}


NEAR = """
version: 1
name: near
tasks:
  parity: {split: release, items: 20}
gates:
  - {metric: parity.p1_cosine, rule: at_least, value: VALUE, because: it should stay near}
  - {metric: size.ratio, rule: at_most, value: 1.0, because: it should not grow}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("value", "status", "code"), [(0.5, "passed", 0), (0.99999, "failed", 3)])
def test_a_torch_folder_is_gated_as_it_runs(encoder, tmp_path, capsys, value, status, code):
    original = tiny_clip.save(tmp_path / "clip", width=64)
    treated(encoder, "nf4")
    written(encoder, tmp_path / "made")
    policy = tmp_path / "near.yaml"
    policy.write_text(NEAR.replace("VALUE", str(value)))
    words = ["gate", tmp_path / "made", "--reference", original, "--policy", policy, "--calibration", "none"]
    assert main([str(word) for word in [*words, "--output", tmp_path / "out", "--quiet", "--json"]]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == status
    for kind in ("vision", "text"):
        file = tmp_path / "made" / told["towers"][kind]["from"]
        assert file.parent.name == "torch"
        assert 0.9 * file.stat().st_size < sum(told["towers"][kind]["weights"].values()) < file.stat().st_size
    sizes = {row["tower"]: row["candidate_bytes"] for row in told["sizes"]}
    assert sizes["vision"] == (tmp_path / "made" / told["towers"]["vision"]["from"]).stat().st_size
    assert "run by torch" in " ".join(lines(told))


@pytest.mark.parametrize("place", ["elsewhere/vision_model.safetensors", "onnx/vision_model.safetensors"])
def test_a_torch_tower_lies_where_its_size_is_counted(encoder, tmp_path, place):
    written(encoder, tmp_path / "made")
    moved = tmp_path / "made" / place
    moved.parent.mkdir()
    told = runtime.read(tmp_path / "made")
    (tmp_path / "made" / told.towers.vision.file).rename(moved)
    data = json.loads((tmp_path / "made" / runtime.FILE).read_text())
    data["towers"]["vision"]["file"] = place
    (tmp_path / "made" / runtime.FILE).write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match="below torch/"):
        tower_contents.read(tmp_path / "made", ("vision", "text"))


def test_a_shard_with_a_hostile_header_is_refused(encoder, tmp_path):
    written(encoder, tmp_path / "made")
    file = tmp_path / "made" / runtime.read(tmp_path / "made").towers.text.file
    nested = b'{"a":' * 200_000
    file.write_bytes(struct.pack("<Q", len(nested)) + nested)
    with pytest.raises(IntegrityError, match="no safetensors file"):
        tower_contents.read(tmp_path / "made", ("vision", "text"))
