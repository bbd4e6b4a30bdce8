"""From a Hugging Face dual encoder to float ONNX towers, one thin wrapper a tower."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.models.families.family import Family, TowerParts
from compress.models.graph import clean, strip_nodes
from compress.models.sites import by_module_path
from compress.models.tower import Tower

OPSET: Final = 20
"""The first opset with a whole Gelu; LayerNormalization is whole since 17."""

WHOLE: Final = "model"
"""What a wrapper calls a model that is its own body."""


class TowerWrapper(nn.Module):
    """Body, pooled output, projection, and on request the L2 norm: what an artifact's tower computes."""

    def __init__(self, model: nn.Module, parts: TowerParts, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.inputs = parts.inputs
        # registered under the model's own names, so that exported module paths match the family's patterns
        self._body, self._parts = parts.body or WHOLE, parts
        self.add_module(self._body, body_of(model, parts))
        if parts.projection:
            self.add_module(parts.projection, getattr(model, parts.projection))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Embeddings (batch, projection), and the tokens (batch, tokens, width) where the family names them."""
        named = dict(zip(self.inputs, inputs, strict=True))
        seen = getattr(self, self._body)(**named)
        pooled = seen.pooler_output if self._parts.pooled == "pooler_output" else seen.last_hidden_state[:, 0]
        embeds: Tensor = getattr(self, self._parts.projection)(pooled) if self._parts.projection else pooled
        made = embeds / embeds.norm(dim=-1, keepdim=True) if self.normalize else embeds
        return (made,) if self._parts.tokens is None else (made, getattr(seen, self._parts.tokens))


def body_of(model: nn.Module, parts: TowerParts) -> Any:
    """The module that turns a tower's inputs into tokens."""
    return getattr(model, parts.body) if parts.body else model


def export_towers(model: Any, family: Family, normalize: bool) -> tuple[dict[str, Tower], float]:
    """Float towers of a model, and the largest absolute difference between its embeddings and theirs."""
    towers, worst = {}, 0.0
    for kind, parts in family.towers.items():
        body = body_of(model, parts)
        body.config._attn_implementation = "eager"  # the fused one exports as twice the nodes, NaN guards among them
        wrapper = TowerWrapper(model, parts, normalize).eval()
        example = example_of(body.config, kind)
        graph = exported(wrapper, parts, example)
        sites = by_module_path(graph, parts)
        strip_nodes(graph)
        towers[kind] = Tower(kind, graph, sites, parts.inputs, parts.output, tokens=parts.tokens)
        worst = max(worst, difference(wrapper, graph, parts, example_of(body.config, kind, batch=5, seed=1)))
    return towers, worst


def exported(wrapper: TowerWrapper, parts: TowerParts, example: tuple[Tensor, ...]) -> onnx.ModelProto:
    """The graph of a wrapper, cleaned; its nodes still carry what the exporter noted on them."""
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            wrapper,
            example,
            input_names=list(parts.inputs),
            output_names=[name for name in (parts.output, parts.tokens) if name is not None],
            dynamic_shapes=(dynamic(example),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    del model.graph.output[1:]  # the tokens keep their name inside; a tower has one output
    return clean(model)


def dynamic(example: tuple[Tensor, ...]) -> tuple[dict[int, str], ...]:
    """Which axes of a tower's inputs may have any length."""
    return tuple({0: "batch"} if value.ndim == 4 else {0: "batch", 1: "sequence"} for value in example)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns about its own internals and prints its progress; neither is for the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def example_of(config: Any, kind: str, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of a tower: noise for images; for texts random ids that end with the end token at different places."""
    noise = torch.Generator().manual_seed(seed)
    if kind == "vision":
        side = config.image_size
        high, wide = side if isinstance(side, list | tuple) else (side, side)
        return (torch.randn(batch, 3, high, wide, generator=noise),)
    length = min(12, config.max_position_embeddings)
    low = min(4, config.vocab_size - 1)
    ids = torch.randint(low, config.vocab_size, (batch, length), generator=noise)
    mask = torch.ones_like(ids)
    end = config.eos_token_id if config.eos_token_id != 2 else config.vocab_size - 1  # 2: pooled at the largest id
    ids[ids == end] = low
    for row in range(batch):
        last = length - 1 - row % (length // 2)
        ids[row, last:], mask[row, last + 1 :] = end, 0
    return ids, mask


def difference(wrapper: TowerWrapper, graph: onnx.ModelProto, parts: TowerParts, inputs: tuple[Tensor, ...]) -> float:
    """Largest absolute difference between the framework's embeddings and the graph's."""
    with torch.no_grad():
        expected: NDArray[np.float32] = wrapper(*inputs)[0].numpy()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    named = {name: value.numpy() for name, value in zip(parts.inputs, inputs, strict=True)}
    (got,) = session.run(None, {item.name: named[item.name] for item in session.get_inputs()})
    return float(np.abs(expected - got).max())
