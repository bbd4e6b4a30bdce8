"""CLIP (arXiv:2103.00020) as Hugging Face's `CLIPModel` lays it out."""

from __future__ import annotations

from typing import Final

from compress.models.families.family import Family, TowerParts


def _block(tower: str) -> dict[str, str]:
    layer = rf"{tower}\.encoder\.layers\.(?P<layer>\d+)"
    return {
        "attn.qkv": rf"{layer}\.self_attn\.[qkv]_proj",
        "attn.out": rf"{layer}\.self_attn\.out_proj",
        "mlp.fc1": rf"{layer}\.mlp\.fc1",
        "mlp.fc2": rf"{layer}\.mlp\.fc2",
    }


FAMILY: Final = Family(
    architectures=("CLIPModel",),
    padding="longest",
    towers={
        "vision": TowerParts(
            body="vision_model",
            projection="visual_projection",
            inputs=("pixel_values",),
            output="image_embeds",
            roles={
                **_block("vision_model"),
                "patch_embed": r"vision_model\.embeddings\.patch_embedding",
                "projection": "visual_projection",
            },
            tokens="last_hidden_state",
        ),
        "text": TowerParts(
            body="text_model",
            projection="text_projection",
            inputs=("input_ids", "attention_mask"),
            output="text_embeds",
            roles={
                **_block("text_model"),
                "embedding": r"text_model\.embeddings\.token_embedding",
                "projection": "text_projection",
            },
        ),
    },
)
