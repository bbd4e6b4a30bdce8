"""A Hugging Face model whose weights stay in their shards: the same graph, the same artifact, killed or not."""

import json
import os
import signal
import subprocess
import sys

import clip_sample
import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, InternVLVisionConfig, InternVLVisionModel

from compress.core.errors import UsageError
from compress.models import lazy_export
from compress.models.graph import array
from compress.models.reference import is_reference

SIDE = 16
RECIPE = """version: 1
name: tiny_vit
model: {{source: {folder}, streaming: {streaming}}}
steps:
  - {{use: quantize.int4_rtn, block: 16}}
targets: [onnxruntime-cpu]
policy: none
reason: "its weights are random"
"""
KILLING = """
import os, signal, sys
from compress.cli import terminal
class Killing(terminal.Bars):
    def say(self, line):
        super().say(line)
        if line.startswith("2 of 3 blocks done"):
            os.kill(os.getpid(), signal.SIGKILL)
terminal.Bars = Killing
from compress.cli.main import main
sys.exit(main())
"""


def internvl(folder, dtype=torch.bfloat16, width=160):
    """An InternViT of three blocks with weights that differ from each other, in shards."""
    torch.manual_seed(0)
    config = InternVLVisionConfig(
        hidden_size=width, intermediate_size=2 * width + 16, num_hidden_layers=3, num_attention_heads=2,
        image_size=[SIDE, SIDE], patch_size=[8, 8], use_qk_norm=True, norm_type="rms_norm", use_mean_pooling=False,
    )  # fmt: skip
    model = InternVLVisionModel(config)
    for weight in model.parameters():
        weight.data = 0.1 * torch.randn(weight.shape)
    model.to(dtype).save_pretrained(folder, max_shard_size="300KB")
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    return folder


def clip(folder):
    clip_sample.model().save_pretrained(folder, max_shard_size="20KB")
    return folder


@pytest.mark.parametrize("make", [internvl, clip])
def test_what_is_exported_without_weights_is_what_is_exported_with_them(tmp_path, monkeypatch, make):
    monkeypatch.setattr(lazy_export, "HELD", 1024)
    folder = make(tmp_path)
    loaded, streamed = (clip_sample.loaded(folder, streaming=streaming) for streaming in (False, True))
    assert streamed.parameters == loaded.parameters
    assert streamed.logit_scale == pytest.approx(loaded.logit_scale) if loaded.logit_scale else True
    assert {name: json.loads(content) for name, content in streamed.files.items()} == {
        name: json.loads(content) for name, content in loaded.files.items()
    }
    for kind, tower in loaded.towers.items():
        large = streamed.towers[kind]
        assert large.streamed
        assert large.sites == tower.sites
        assert large.tokens == tower.tokens
        one, other = tower.graph.graph, large.graph.graph
        assert list(one.node) == list(other.node)
        assert list(one.input) == list(other.input)
        assert [each.name for each in one.initializer] == [each.name for each in other.initializer]
        for mine, theirs in zip(one.initializer, other.initializer, strict=True):
            assert np.array_equal(array(mine), array(theirs)), mine.name
        assert all(is_reference(each) == (np.prod(each.dims) > lazy_export.HELD) for each in other.initializer)


def test_weights_that_are_missing_or_of_another_shape_are_named(tmp_path):
    folder = internvl(tmp_path, width=32)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 99}))
    with pytest.raises(UsageError, match=r"encoder\.layer\.0\.mlp\.fc1\.\w+ is .*80.*config says .*99"):
        clip_sample.loaded(folder, streaming=True)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(UsageError, match=r"the weights lack encoder\.layer\.3"):
        clip_sample.loaded(folder, streaming=True)


def run(folder, output, streaming, *more, words=("-m", "compress")):
    recipe = output.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(folder=folder, streaming=streaming))
    words = [*words, "quantize", "--recipe", str(recipe), "--output", str(output), *more]
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, env=wide)
    made = output / "ungated" / "tiny_vit" / "compress" / "gate_report.json"
    return done, json.loads(made.read_bytes()) if made.is_file() else None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_streamed_or_loaded_killed_or_not_the_artifact_is_the_same(tmp_path):
    folder = internvl(tmp_path / "model")
    loaded, streamed = (run(folder, tmp_path / word, word)[1] for word in ("false", "true"))
    assert streamed["digest"] == loaded["digest"]
    assert streamed["steps"] == loaded["steps"]
    assert "blockwise" not in loaded
    told = streamed["blockwise"]["towers"]["vision"]
    assert [each["layer"] for each in told["blocks"]] == [None, 0, 1, 2, None]
    assert all(0 < each["relative_error"] < 0.5 for each in told["blocks"][1:])
    assert all(0.5 < cosine <= 1 for cosine in told["embedding_cosine"])
    done, report = run(folder, tmp_path / "killed", "true", words=("-c", KILLING))
    assert done.returncode == -signal.SIGKILL
    assert report is None
    done, report = run(folder, tmp_path / "killed", "true", "--resume")
    assert "resumed: 13 weights are done" in done.stderr  # two blocks of six, and the first weight of the third
    assert report["digest"] == streamed["digest"]
    assert report["steps"] == streamed["steps"]
    assert not list((tmp_path / "killed" / "staging").glob(".*.checkpoint"))
