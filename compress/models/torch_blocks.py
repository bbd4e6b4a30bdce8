"""Blocks of a pruned model in torch that have lost their attention, their MLP, or both."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from compress.artifact import layout
from compress.core.errors import UsageError

_BRANCHES = (("layer_norm1", "self_attn"), ("layer_norm2", "mlp"))
"""Of a block, in the order in which they add to the stream: a norm and what reads it."""


def shorten(model: Any, removed: Iterable[str]) -> None:
    """Take modules out of the blocks of a model, by path: an attention or an MLP, and the norm before it."""
    blocks: dict[str, tuple[Any, list[str]]] = {}
    for path in removed:
        parent, _, name = path.rpartition(".")
        try:
            block = model.get_submodule(parent)
            model.get_submodule(path)
        except AttributeError:
            raise UsageError(f"the model has no module {path!r}", layout.STRUCTURE) from None
        if name not in {part for branch in _BRANCHES for part in branch} or not hasattr(block, "layer_norm1"):
            raise UsageError(f"{path!r} is no part that a block can lose", layout.STRUCTURE)
        blocks.setdefault(parent, (block, []))[1].append(name)
    for parent, (block, names) in blocks.items():
        for norm, part in _BRANCHES:
            if (norm in names) != (part in names):
                raise UsageError(f"{parent}.{part} goes with {parent}.{norm} or not at all", layout.STRUCTURE)
        for name in names:
            delattr(block, name)
        block.forward = types.MethodType(_forward, block)


def _forward(self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
    """The stream (batch, tokens, d) behind what is left of the block."""
    if "self_attn" in self._modules:
        seen = self.layer_norm1(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden_states=seen, attention_mask=attention_mask, **options)[0]
    if "mlp" in self._modules:
        hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
    return hidden_states
