"""Students of another shape: what they inherit, the space they stand in, the model they make, and what cannot be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_clip
import tiny_towers
import torch
import transformers
from scipy.linalg import orthogonal_procrustes
from test_pruned_model import embedded, feeds, loaded, written
from tiny_training import TinySet, stored

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.models.graph import array, initializers
from compress.models.students_origin import standing
from compress.models.tower import copied
from compress.pipeline import model
from compress.pipeline.checkpoint import Checkpoint
from compress.recipe.training import Feeding
from compress.steps.distill import student
from compress.steps.distill._blocks import outputs, paired
from compress.steps.distill._replacing import _samples
from compress.steps.prune import mlp
from compress.steps.step import Context
from compress.targets.graph.session import open_session

HALF = {"towers": ["text"], "size": "half"}
BERT = {
    "model_type": "bert", "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
    "num_hidden_layers": 1, "vocab_size": len(tiny_clip.VOCABULARY), "max_position_embeddings": tiny_clip.TOKENS,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, a smaller one with the same tokenizer, and the float reference of the first."""
    place = tmp_path_factory.mktemp("students")
    tiny_clip.save(place / "original")
    tiny_clip.save(place / "smaller", width=16, seed=1)
    return place


@pytest.fixture(scope="module")
def original(folders):
    return loaded(folders / "original")


@pytest.fixture(scope="module")
def reference(folders, original):
    return model.write_reference(original, folders / "reference")


@pytest.fixture(scope="module")
def halved(original, folders):
    """The model with a text tower of half the layers, and what was said of it."""
    encoder = copied(original)
    return encoder, student.apply(encoder, spec(HALF), Context(feeds, teacher=original))


def spec(told):
    return student.Spec.model_validate_json(json.dumps(told))


def state(folder):
    return transformers.CLIPModel.from_pretrained(folder).state_dict()


def plain_text(folder, feed):
    """What plain transformers says of texts."""
    found = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        pooled = found.text_model(**{name: torch.from_numpy(value) for name, value in feed.items()}).pooler_output
        said = found.text_projection(pooled).numpy()
    return said / np.linalg.norm(said, axis=1, keepdims=True)


def test_half_of_the_layers_with_the_weights_of_those_they_stand_for(halved, folders):
    """The only block left is the teacher's last, number 1 of 0 and 1."""
    encoder, report = halved
    tower, before = encoder.towers["text"], state(folders / "original")
    held = {name: array(each) for name, each in initializers(tower.graph).items()}
    start = "text_model.encoder.layers"
    for name in ("mlp.fc1.weight", "self_attn.q_proj.weight"):
        np.testing.assert_array_equal(held[f"{start}.0.{name}_t"], before[f"{start}.1.{name}"].numpy().T)
    np.testing.assert_array_equal(held["text_projection.weight_t"], before["text_projection.weight"].numpy().T)
    assert {site.layer for site in tower.sites} == {0, None}
    assert "1 layers, 32 wide" in report.summary
    assert "20 of 20 tensors of the teacher" in report.summary
    assert [(row.tower, row.site) for row in report.rows] == [("text", site.name) for site in tower.sites]


def test_it_computes_what_the_model_without_its_first_block_computes(halved, folders):
    teacher = transformers.CLIPModel.from_pretrained(folders / "original").eval()
    del teacher.text_model.encoder.layers[0]
    (feed,) = feeds("text", 1)
    with torch.no_grad():
        pooled = teacher.text_model(**{name: torch.from_numpy(value) for name, value in feed.items()}).pooler_output
        said = teacher.text_projection(pooled).numpy()
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    assert embedded(halved[0], "text") == pytest.approx(said, abs=1e-5)


def test_the_other_tower_is_left_alone(halved, original):
    graphs = [each.towers["vision"].graph.SerializeToString(deterministic=True) for each in (halved[0], original)]
    assert graphs[0] == graphs[1]
    assert halved[0].towers["vision"].config is None


def test_no_two_places_share_a_weight(halved, original):
    """Norms and biases that were never trained are equal, and the exporter joins those; they could not learn apart."""

    def joined(tower):
        read = [name for node in tower.graph.graph.node for name in node.input]
        return {
            name
            for name, each in initializers(tower.graph).items()
            if each.data_type == 1 and each.dims and each.dims[-1] > 1 and read.count(name) > 1
        }

    assert joined(original.towers["text"])
    assert not joined(halved[0].towers["text"])


def test_blocks_are_paired_by_their_places_and_not_by_names(halved, original):
    own, other = halved[0].towers["text"], original.towers["text"]
    assert not set(outputs(own)) & set(outputs(other))
    assert [pair.teacher for pair in paired(own, other)] == [outputs(other)[-1]]


def test_it_is_a_model_of_its_own(halved, folders, tmp_path):
    """The folder loads in plain transformers, and is held against the teacher."""
    encoder = copied(halved[0])
    folder = written(encoder, tmp_path / "artifact")
    told = json.loads((folder / "config.json").read_text())
    assert told["text_config"]["num_hidden_layers"] == 1
    assert told["vision_config"]["num_hidden_layers"] == 2
    assert json.loads((folder / layout.STRUCTURE).read_text())["origin"] == {"source": "./original", "revision": None}
    (feed,) = feeds("text", 1)
    assert plain_text(folder, feed) == pytest.approx(embedded(encoder, "text"), abs=1e-5)


@pytest.mark.long
def test_it_is_pruned_like_any_other(halved, tmp_path):
    encoder = copied(halved[0])
    mlp.apply(encoder, mlp.Spec(ratio=0.25, towers=("text",)), Context(feeds))
    narrow = written(encoder, tmp_path / "narrow")
    again = loaded(narrow)
    for kind in ("vision", "text"):
        assert embedded(again, kind) == pytest.approx(embedded(encoder, kind), abs=1e-5)
    assert set(json.loads((narrow / layout.STRUCTURE).read_text())["modules"]) == {
        f"text_model.encoder.layers.0.mlp.{name}" for name in ("fc1", "fc2")
    }
    assert again.origin.pruned
    assert again.parameters == sum(value.numel() for value in state(narrow).values())


def test_a_checkpoint_knows_it(halved, original, tmp_path):
    again = copied(original)
    kept = Checkpoint(tmp_path, {}, copied(original), Silent())
    kept.encoder = halved[0]
    kept.save([halved[1]])
    assert Checkpoint(tmp_path, {}, again, Silent()).start(resume=True) == [halved[1]]
    assert again.towers["text"].config == halved[0].towers["text"].config
    assert standing(again).files["config.json"] == standing(halved[0]).files["config.json"]
    assert embedded(again, "text") == pytest.approx(embedded(halved[0], "text"))


def test_a_smaller_model_is_turned_into_the_teachers_space(folders, original, reference):
    """Its 16 numbers become 32 by the rotation that scipy finds, and its own cosines stay what they are."""
    encoder = copied(original)
    told = {"towers": ["text"], "source": str(folders / "smaller"), "map": "procrustes"}
    report = student.apply(encoder, spec(told), Context(feeds, teacher=original, reference=reference))
    assert "36 of 36 tensors of smaller, procrustes map from 16 to 32 numbers by 24 samples" in report.summary
    given = list(feeds("text"))
    said = np.concatenate([plain_text(folders / "smaller", feed) for feed in given])
    asked = np.concatenate([embed(original, feed) for feed in given])
    turn = orthogonal_procrustes(np.pad(said, ((0, 0), (0, 16))), asked)[0][:16]
    made = np.concatenate([embed(encoder, feed) for feed in given])
    np.testing.assert_allclose(made, said @ turn, atol=1e-5)
    np.testing.assert_allclose(made @ made.T, said @ said.T, atol=1e-5)


def embed(encoder, feed, kind="text"):
    return open_session(encoder.towers[kind].graph).run(None, dict(feed))[0]


@pytest.mark.long
def test_another_architecture_is_an_onnx_tower_and_says_so(original, tmp_path):
    encoder, again = copied(original), copied(original)
    told = spec({"towers": ["text"], "config": BERT, "map": "linear"})
    report = student.apply(encoder, told, Context(feeds, seed=3))
    assert student.apply(again, told, Context(feeds, seed=3)) == report
    graphs = [each.towers["text"].graph.SerializeToString(deterministic=True) for each in (encoder, again)]
    assert graphs[0] == graphs[1], "the same seed gives the same bytes"
    assert "the artifact holds ONNX towers only" in report.summary
    folder = written(encoder, tmp_path / "artifact")
    assert not (folder / "model.safetensors").exists()
    assert not (folder / layout.STRUCTURE).exists()
    told = json.loads((folder / "config.json").read_text())
    assert told["text_config"]["model_type"] == "bert"
    assert "architectures" not in told
    (feed,) = feeds("text", 1)
    made = embed(encoder, feed)
    padded = {name: np.pad(value, ((0, 0), (0, 3))) for name, value in feed.items()}
    np.testing.assert_allclose(embed(encoder, padded), made, atol=1e-5)  # what is padding counts for nothing
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


@pytest.mark.long
def test_a_vision_tower_alone_keeps_its_width_of_embeddings(tmp_path):
    """The config of such a model says the width of its embeddings too, and a smaller one's is another."""
    for name, width, joint in (("large", 32, 24), ("little", 16, 12)):
        shape = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.CLIPVisionConfig(**shape, image_size=32, patch_size=16, projection_dim=joint)
        transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / name)
        images = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        transformers.CLIPImageProcessorPil(**images).save_pretrained(tmp_path / name)
    encoder = loaded(tmp_path / "large")
    told = {"towers": ["vision"], "source": str(tmp_path / "little")}
    assert "linear map from 12 to 24" in student.apply(encoder, spec(told), Context(feeds)).summary
    folder = written(encoder, tmp_path / "artifact")
    plain = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    (feed,) = feeds("vision", 1)
    with torch.no_grad():
        said = plain(torch.from_numpy(feed["pixel_values"])).image_embeds.numpy()
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    assert embed(encoder, feed, "vision") == pytest.approx(said, abs=1e-5)


def test_onnx_towers_get_students_too(tiny_encoder):
    config = {
        "model_type": "vit", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2,
        "num_hidden_layers": 1, "image_size": tiny_towers.SIDE, "patch_size": tiny_towers.PATCH,
    }  # fmt: skip
    encoder = copied(tiny_encoder)
    before = encoder.towers["vision"]
    student.apply(encoder, spec({"towers": ["vision"], "config": config}), Context())
    tower = encoder.towers["vision"]
    assert (tower.inputs, tower.output, tower.tokens) == (before.inputs, before.output, before.tokens)
    assert {site.role for site in tower.sites} == {
        "patch_embed", "attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection"
    }  # fmt: skip
    if tower.tokens is not None:
        assert any(tower.tokens in node.output for node in tower.graph.graph.node)
    (feed,) = tiny_towers.feeds("vision", 1)
    assert embed(encoder, feed, "vision").shape == (3, tiny_towers.JOINT)
    with pytest.raises(UsageError, match="no config to derive a student from"):
        student.apply(encoder, spec({"towers": ["text"], "size": "half"}), Context())


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"config": {"num_layers": 1}}, "no such key"),
        ({"config": {"projection_dim": 8}}, "not the student's to choose"),
        ({"config": {"num_attention_heads": 3}}, "not a multiple of the number of attention heads"),
        ({"config": {"hidden_act": "geluu"}}, "can be made of this config"),
        ({"config": {"model_type": "clip_text"}}, "no model type 'clip_text'"),
        ({"config": {"vocab_size": 4}}, "the table has 4 rows"),
        ({"config": {"max_position_embeddings": 9}}, "9 places for tokens, and the preprocessing makes 24"),
        ({"towers": ["vision"], "config": {"image_size": 64}}, "images of 64x64, and the preprocessing makes 32x32"),
        ({"towers": ["vision"], "config": {"patch_size": 5}}, "patches of 5x5 leave a rest of 32x32"),
        ({"towers": ["vision"], "config": {"num_channels": 1}}, "1 channels"),
        ({"size": "half", "include": ["mlp.fc1"]}, "whole towers"),
        ({"source": "./nowhere"}, "no such model folder"),
        ({"config": {"hidden_size": 16}, "start": "inherited"}, "nothing of the teacher fits the student"),
    ],
    ids=str,
)
def test_what_cannot_be(told, match, original, reference):
    encoder = copied(original)
    with pytest.raises(UsageError, match=match):
        student.apply(encoder, spec({"towers": ["text"], **told}), Context(feeds, reference=reference))
    assert encoder.towers["text"].graph == original.towers["text"].graph


def test_what_a_pruned_model_has_seen_is_not_forgotten(original):
    pruned = replace(original, origin=replace(original.origin, pruned=True))
    with pytest.raises(UsageError, match="pruned model gets no students of another architecture"):
        student.apply(copied(pruned), spec({"towers": ["text"], "config": BERT}), Context())


def test_a_larger_one_is_no_student(original):
    """Tables 98 x 32 and 24 x 32, four blocks of 8,544, the last norm 64, the projection 32 x 32."""
    with pytest.raises(UsageError, match="the text student has 39,168 weights"):
        student.apply(copied(original), spec({"towers": ["text"], "config": {"num_hidden_layers": 4}}), Context())


def test_a_map_needs_data(original):
    with pytest.raises(UsageError, match="needs calibration or training data"):
        student.apply(copied(original), spec({**HALF, "map": "linear"}), Context())


def test_another_tokenizer_is_refused(folders, original, reference, tmp_path):
    from shutil import copytree

    other = copytree(folders / "smaller", tmp_path / "other")
    told = json.loads((other / "tokenizer.json").read_text())
    a, b = ("t", "x")
    words = told["model"]["vocab"]
    words[a], words[b] = words[b], words[a]
    (other / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(UsageError, match="tokenizers do not match"):
        student.apply(
            copied(original), spec({"towers": ["text"], "source": str(other)}), Context(feeds, reference=reference)
        )


def test_an_artifact_is_no_source(folders, original, tmp_path):
    folder = written(original, tmp_path / "artifact")
    with pytest.raises(UsageError, match="does not start from a compressed artifact"):
        student.apply(copied(original), spec({"towers": ["text"], "source": str(folder)}), Context(feeds))


@pytest.mark.parametrize(
    "told",
    [{}, {"towers": ["text"]}, {"size": "large"}, {"size": "half", "revision": "main"},
     {"source": "./x", "config": {"model_type": "bert"}}, {"size": "half", "start": "scratch"}],
    ids=str,
)  # fmt: skip
def test_options_that_say_nothing(told):
    with pytest.raises(ValueError, match=r"student|revision|model_type|Input should be"):
        spec(told)


def test_a_map_sees_every_view_of_the_training_data():
    """Five batches of 32 an epoch, two epochs of other views; and not more than 2,048 samples."""
    few = TinySet(stored(160), Feeding(views=2))
    assert [len(each["input_ids"]) for each in _samples("text", Context(training=few))] == [32] * 10
    many = TinySet(stored(3000))
    assert sum(len(each["input_ids"]) for each in _samples("text", Context(training=many))) == 2048
    images = TinySet(stored(64, use="images"))
    assert [set(each) for each in _samples("text", Context(feeds, training=images))] == [
        {"input_ids", "attention_mask"}
    ] * 6
