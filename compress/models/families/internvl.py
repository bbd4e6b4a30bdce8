"""InternViT (arXiv:2312.14238) as Hugging Face's `InternVLVisionModel` lays it out: blocks, and no projection.

Its embedding is the class token after the last block; what a language model reads are the tokens.
"""

from __future__ import annotations

from typing import Final

from compress.models.families.family import Family, TowerParts

_LAYER: Final = r"model\.encoder\.layer\.(?P<layer>\d+)"

FAMILY: Final = Family(
    architectures=("InternVLVisionModel",),
    towers={
        "vision": TowerParts(
            body="",
            projection="",
            inputs=("pixel_values",),
            output="image_embeds",
            roles={
                "attn.qkv": rf"{_LAYER}\.attention\.[qkv]_proj",
                "attn.out": rf"{_LAYER}\.attention\.projection_layer",
                "mlp.fc1": rf"{_LAYER}\.mlp\.fc1",
                "mlp.fc2": rf"{_LAYER}\.mlp\.fc2",
                "patch_embed": r"model\.embeddings\.patch_embeddings\.projection",
            },
            tokens="last_hidden_state",
            pooled="first_token",
        ),
    },
)
