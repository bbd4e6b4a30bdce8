"""Any Hugging Face body as a tower's wrapper wants it: tokens, and one vector for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Pooling = Literal["mean", "first"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pooled body gives, under the names that a wrapper asks for."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class PooledBody(nn.Module):
    """Any Hugging Face body with its tokens pooled; `names` are its inputs by those of the tower."""

    def __init__(self, inner: nn.Module, names: Mapping[str, str], pooling: Pooling) -> None:
        super().__init__()
        self.inner, self._names, self._pooling = inner, dict(names), pooling

    def forward(self, **named: Tensor) -> Seen:
        """Tokens (batch, tokens, width), and their mean over those that are real, or the first of them."""
        given = {self._names[name]: value for name, value in named.items()}
        tokens: Tensor = self.inner(**given).last_hidden_state
        if tokens.ndim == 4:  # channels of a convolutional network
            tokens = tokens.flatten(2).transpose(1, 2)
        if self._pooling == "first":
            return Seen(tokens, tokens[:, 0])
        if (mask := given.get("attention_mask")) is None:
            return Seen(tokens, tokens.mean(1))
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        return Seen(tokens, (tokens * weights).sum(1) / weights.sum(1))
