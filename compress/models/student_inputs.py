"""What a tower is fed, and how wide its embedding is, learned from its graph and tried with made-up inputs."""

from __future__ import annotations

from typing import Any

import onnxruntime
import torch
from torch import Tensor

from compress.core.errors import UsageError
from compress.models.tower import Tower


def example(tower: Tower, config: Any, batch: int, seed: int) -> tuple[Tensor, ...]:
    """Inputs of a tower for a body of a config: noise for images, random ids of different lengths for texts."""
    noise = torch.Generator().manual_seed(seed)
    if tower.kind == "vision":
        shape = image_shape(tower)
        side = getattr(config, "image_size", 224)
        high, wide = shape[1:] if len(shape) == 3 and all(shape) else (side, side) if isinstance(side, int) else side
        return (torch.randn(batch, 3, high, wide, generator=noise),)
    length = min(12, getattr(config, "max_position_embeddings", 12))
    ids = torch.randint(min(4, config.vocab_size - 1), config.vocab_size, (batch, length), generator=noise)
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, length - row % (length // 2 or 1) :] = 0
    return (ids, mask)[: len(tower.inputs)]


def image_shape(tower: Tower) -> tuple[int, ...]:
    """Channels, height and width of what a vision tower takes; 0 where any will do."""
    given = next(value for value in tower.graph.graph.input if value.name == tower.inputs[0])
    return tuple(each.dim_value for each in given.type.tensor_type.shape.dim)[1:]


def width_of(tower: Tower, example: tuple[Tensor, ...]) -> int:
    """How many numbers a tower's embedding has."""
    session = onnxruntime.InferenceSession(tower.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(tower.inputs, example, strict=True)}
    made = session.run([tower.output], feed)[0]
    if made.ndim != 2:
        raise UsageError(f"the {tower.kind} tower gives no embeddings but {made.ndim - 1} dimensions", "towers")
    return int(made.shape[1])
