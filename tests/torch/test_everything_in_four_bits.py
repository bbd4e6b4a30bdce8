"""A CLIP with every table, patch embedding and product in 4 bits: bytes with everything counted, and parity."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from compress.models.families.clip import FAMILY
from compress.models.torch_export import export_towers
from compress.models.tower import Encoder, copied
from compress.pipeline.measurement import model_bytes
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
EVERYTHING = ("patch_embed", *int4_rtn.DEFAULT, "embedding")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    shared = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**shared, "vocab_size": 9000, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 1}
    config = CLIPConfig(
        text_config=text, vision_config={**shared, "image_size": 64, "patch_size": 32}, projection_dim=256
    )
    towers, error = export_towers(CLIPModel(config).eval(), FAMILY, normalize=True)
    preprocess = {"kind": "plain", "image": {"size": (64, 64)}, "text": {"tokenizer": "bytes", "length": 77}}
    return Encoder("random", None, "CLIPModel", 1, towers, {}, preprocess, 100.0, True, error)


def written(encoder, folder):
    folder.mkdir()
    files = onnxruntime_cpu.export(encoder, folder)
    return files, sum(model_bytes(folder).values())


def test_all_of_it_is_below_one_in_six_and_a_half(encoder, tmp_path):
    treated = copied(encoder)
    int4_rtn.apply(treated, int4_rtn.Spec(block=64, include=EVERYTHING, scale_search="absmax"), Context())
    _, before = written(encoder, tmp_path / "float")
    files, after = written(treated, tmp_path / "q4")
    assert after <= before / 6.5
    for kind, (planned, found) in onnxruntime_cpu.counts(treated, files).items():
        assert planned == found
        assert not any(name.startswith("float") for name in planned), kind
    assert "int4 table in blocks of 64" in onnxruntime_cpu.counts(treated, files)["text"][0]


def test_the_files_compute_what_the_rounded_weights_mean(encoder, tmp_path):
    from size import parity

    treated = copied(encoder)
    int4_rtn.apply(treated, int4_rtn.Spec(block=64, include=EVERYTHING, symmetric=False), Context())
    files, _ = written(treated, tmp_path / "q4")
    assert parity(treated, files) > 0.999999
    held = treated.towers["text"].treatments["text_model.embeddings.token_embedding"]
    held.scales[:] = np.abs(held.scales) * 3
    assert parity(treated, files) < 0.999, "another table would be seen"
