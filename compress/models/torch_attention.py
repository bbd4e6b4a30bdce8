"""The attention of a pruned model in torch, for heads whose queries and values are of different widths."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compress.artifact import layout
from compress.core.errors import UsageError

_PARTS = ("q_proj", "k_proj", "v_proj", "out_proj", "scale")


def cut(model: Any, heads: Mapping[str, int]) -> None:
    """Let the attentions at some paths cut what their products give into so many heads, whatever their width."""
    for path, count in heads.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise UsageError(f"the model has no module {path!r}", layout.STRUCTURE) from None
        if lacking := [name for name in _PARTS if not hasattr(module, name)]:
            raise UsageError(f"{path!r} is no attention: it has no {', '.join(lacking)}", layout.STRUCTURE)
        if module.q_proj.out_features % count or module.v_proj.out_features % count:
            raise UsageError(f"the products of {path!r} cannot be cut into {count} heads", layout.STRUCTURE)
        module.num_heads = count
        module.forward = types.MethodType(_forward, module)


def _forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, Tensor | None]:
    """States (batch, tokens, d) and an additive mask; the scale of the logits is that of the original heads."""
    query, key, value = (
        product(hidden_states).unflatten(-1, (self.num_heads, product.out_features // self.num_heads)).transpose(1, 2)
        for product in (self.q_proj, self.k_proj, self.v_proj)
    )
    logits = query @ key.transpose(-1, -2) * self.scale
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = torch.softmax(logits, -1)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    return self.out_proj(mixed), weights
