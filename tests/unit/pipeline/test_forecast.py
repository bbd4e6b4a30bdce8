"""What a run on a model larger than memory takes is told from headers alone, and refused before anything is done."""

import json
import math
import struct
import time

import pytest

from compress.core.errors import ResourceExhausted, UsageError
from compress.pipeline import forecast, streamed
from compress.pipeline.options import Options
from compress.pipeline.plan import plan
from compress.recipe.load import load
from compress.steps import spec_of

WIDTH, INNER, LAYERS = 3200, 12800, 45
BLOCK = {
    **{f"attention.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkv"},
    "attention.projection_layer.weight": (WIDTH, WIDTH),
    "attention.projection_layer.bias": (WIDTH,),
    "mlp.fc1.weight": (INNER, WIDTH), "mlp.fc1.bias": (INNER,),
    "mlp.fc2.weight": (WIDTH, INNER), "mlp.fc2.bias": (WIDTH,),
}  # fmt: skip
CONFIG = {
    "architectures": ["InternVLVisionModel"], "model_type": "internvl_vision", "hidden_size": WIDTH,
    "intermediate_size": INNER, "num_hidden_layers": LAYERS, "image_size": [448, 448], "patch_size": [14, 14],
}  # fmt: skip
RECIPE = """version: 1
name: large
model: {{source: {folder}, streaming: true}}
data: {{calibration: {{source: scenes, split: calibration, samples: 16}}}}
steps:
  - {step}
targets: [{target}]
policy: {policy}
"""
WITHOUT = 'none\nreason: "it is a test"'


@pytest.fixture
def folder(tmp_path):
    """InternViT-6B as its headers say it: 11 GB of zeros that take no room."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    shapes = {"embeddings.patch_embeddings.projection.weight": (WIDTH, 3, 14, 14)}
    shapes |= {f"encoder.layer.{at}.{name}": shape for at in range(LAYERS) for name, shape in BLOCK.items()}
    told, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        told[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(told).encode()
    with (made / "model.safetensors").open("wb") as opened:
        opened.write(struct.pack("<Q", len(head)) + head)
        opened.truncate(opened.tell() + end)
    return made


def recipe(tmp_path, folder, step="{use: quantize.int4_rtn}", target="onnxruntime-cpu", policy=WITHOUT):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder, step=step, target=target, policy=policy))
    return load(path, spec_of), path


def planned(tmp_path, *told, **named):
    return plan(*recipe(tmp_path, *told, **named), Options(output=tmp_path / "out"))


def test_the_plan_of_a_model_of_22_gb_is_there_at_once(tmp_path, folder):
    began = time.process_time()
    made = planned(tmp_path, folder)
    assert time.process_time() - began < 3
    weights = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    patches = WIDTH * 3 * 14 * 14
    assert made.parameters == weights + patches + LAYERS * (3 * WIDTH + INNER - WIDTH)
    (size,) = made.sizes
    assert size.before == 4 * made.parameters
    assert size.after == weights * 5 // 8 + 4 * (made.parameters - weights)  # half a byte, and a scale for 32
    assert 1 << 30 < made.memory < 3 << 30
    assert made.disk > weights * (1 + 3 * 5 / 8)  # a byte each while it is kept, then packed, then in the artifact
    assert len(made.steps[0].rows) == 6 * LAYERS
    assert not made.refused


def test_calibration_takes_memory_for_the_widest_input_and_disk_for_activations(tmp_path, folder):
    plain, data = planned(tmp_path, folder), planned(tmp_path, folder, "{use: quantize.gptq}")
    assert data.memory > plain.memory + 7 * 8 * INNER**2
    assert data.disk - plain.disk >= 2 * 4 * 16 * 1025 * WIDTH
    assert data.steps[0].calibrates


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{use: quantize.awq}", "quantize.gptq"),
        ("{use: quantize.fp16}", "quantize.int8_rtn"),
        ("{use: prune.mlp, ratio: 0.3}", "streaming: false"),
        ("{use: quantize.int8_static, smooth: 0.5}", "leave `smooth` out"),
        ("{use: quantize.int4_rtn, bias_correction: true}", "leave `bias_correction` out"),
        ("{use: quantize.int4_rtn, include: [projection]}", "there is vision:attn.out"),
    ],
)  # fmt: skip
def test_steps_that_need_the_whole_model_are_refused_with_another_way(tmp_path, folder, step, told):
    (refusal,) = planned(tmp_path, folder, step).refused
    assert refusal.where.startswith("steps[0]")
    assert told in refusal.hint
    with pytest.raises(UsageError):
        streamed.require_possible(recipe(tmp_path, folder, step)[0], Options(output=tmp_path))


def test_another_target_and_gates_without_memory_are_refused(tmp_path, folder, monkeypatch):
    (refusal,) = planned(tmp_path, folder, target="tensorrt").refused
    assert refusal.where == "targets"
    gated, options = recipe(tmp_path, folder, policy="clip_release")[0], Options(output=tmp_path / "out")
    monkeypatch.setattr(forecast, "available_memory", lambda: 24 << 30)
    (refusal,) = streamed.expected(gated, options)[1].refused
    assert refusal.where == "policy"
    assert "policy: none" in refusal.hint
    monkeypatch.setattr(forecast, "available_memory", lambda: 64 << 30)
    assert not streamed.expected(gated, options)[1].refused


def test_too_little_disk_or_memory_ends_a_run_before_it_starts(tmp_path, folder, monkeypatch):
    asked, options = recipe(tmp_path, folder)[0], Options(output=tmp_path / "out")
    monkeypatch.setattr(forecast, "free_space", lambda folder: 10 << 30)
    monkeypatch.setattr(forecast, "available_memory", lambda: 64 << 30)
    with pytest.raises(ResourceExhausted, match="GB are free") as raised:
        streamed.require_possible(asked, options)
    assert raised.value.exit_code == 7
    monkeypatch.setattr(forecast, "free_space", lambda folder: 100 << 30)
    streamed.require_possible(asked, options)
    monkeypatch.setattr(forecast, "available_memory", lambda: 1 << 30)
    with pytest.raises(ResourceExhausted, match="memory"):
        streamed.require_possible(asked, options)
    assert not (tmp_path / "out").exists()


def test_a_model_is_streamed_where_it_is_asked_for_or_memory_is_short(tmp_path, folder, monkeypatch):
    from compress.models import streaming

    asked = recipe(tmp_path, folder)[0].model
    auto = asked.model_copy(update={"streaming": None})
    monkeypatch.setattr(streaming, "available_memory", lambda: 200 << 30)
    assert streaming.shards_of(folder, asked) is not None
    assert streaming.shards_of(folder, auto) is None
    monkeypatch.setattr(streaming, "available_memory", lambda: 24 << 30)
    assert streaming.shards_of(folder, auto) is not None
    assert streaming.shards_of(folder, asked.model_copy(update={"streaming": False})) is None
