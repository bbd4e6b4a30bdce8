"""Tiny CLIP models with random weights: 2 layers, width 32, 16 x 16 images in 8 x 8 patches, 40 tokens."""

from dataclasses import dataclass

import torch
from transformers import CLIPConfig, CLIPModel

from compress.models.loading import load

SIDE, VOCABULARY, LENGTH = 16, 40, 16


@dataclass(frozen=True)
class Asked:
    """A recipe's `model:` as far as loading reads it."""

    source: str
    revision: str | None = None
    allow_pickle: bool = False
    streaming: bool | None = None
    normalize: bool = True


def model(act="gelu", eos=3, seed=0):
    torch.manual_seed(seed)
    shared = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act,
    }  # fmt: skip
    text = {
        **shared, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": eos,
    }  # fmt: skip
    vision = {**shared, "image_size": SIDE, "patch_size": 8}
    made = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():  # fresh biases are all zero, and weights so small that every text looks the same
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return made


def loaded(folder, **options):
    return load(Asked(str(folder), **options), offline=True)
