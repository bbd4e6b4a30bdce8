"""What a family file says about its models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TowerParts:
    """How one tower is called: attribute names of the body and the projection, input names, roles by module path.

    A `body` of "" is the model itself, a `projection` of "" is none. `pooled` is what stands for the whole input: what
    the body calls its pooled output, or the first of its tokens. A role's pattern is matched against the whole module
    path; a group named `layer` gives the block's number. `tokens` is what the body calls the vectors of its patches,
    and what the tensor that holds them is called in the graph.
    """

    body: str
    projection: str
    inputs: tuple[str, ...]
    output: str
    roles: Mapping[str, str]
    tokens: str | None = None
    pooled: Literal["pooler_output", "first_token"] = "pooler_output"

    def role(self, path: str) -> tuple[str, int | None] | None:
        """Role and block number of a module path, or None when it plays none."""
        for role, pattern in self.roles.items():
            if found := re.fullmatch(pattern, path):
                layer = found.groupdict().get("layer")
                return role, None if layer is None else int(layer)
        return None


@dataclass(frozen=True, slots=True)
class Family:
    """A family of dual encoders: the `architectures` of its config files and its towers.

    `padding` is "longest" where the text tower pools at the end token behind a causal mask, so that padding after
    it changes nothing, and "max_length" where it was trained on padded texts.
    """

    architectures: tuple[str, ...]
    towers: Mapping[str, TowerParts]
    padding: str = "max_length"
