"""A CLIP of two layers and random weights as `save_pretrained` writes it, with a character tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

SIDE, TOKENS, WIDTH = 32, 24, 32
VOCABULARY = ["<pad>", "<bos>", "<unk>", "<eos>", *(chr(code) for code in range(33, 127))]


def save(folder: Path, width: int = WIDTH, seed: int = 0) -> Path:
    """Write the model folder."""
    torch.manual_seed(seed)
    shared = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **shared, "vocab_size": len(VOCABULARY), "max_position_embeddings": TOKENS,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
    }  # fmt: skip
    vision = {**shared, "image_size": SIDE, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    model.save_pretrained(folder)
    core = Tokenizer(
        models.WordPiece(
            {token: at for at, token in enumerate(VOCABULARY)}, unk_token="<unk>", continuing_subword_prefix=""
        )
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing("<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=TOKENS, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
