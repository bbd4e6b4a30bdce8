"""Which parts of a model a step works on: roles, and selectors that narrow a role to a tower or a layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, WithJsonSchema

from compress.core.names import did_you_mean

Tower = Literal["vision", "text"]
Role = Literal["patch_embed", "attn.qkv", "attn.out", "mlp.fc1", "mlp.fc2", "projection", "embedding", "conv"]

ROLES: tuple[Role, ...] = get_args(Role)
_NUMBERED = tuple(role for role in ROLES if "." in role or role == "conv")  # the others are there once for each tower
_SELECTOR = re.compile(r"(?:(vision|text):)?([a-z_0-9.]+)(?:@(-?[0-9]{1,4}))?")
_PATTERN = rf"^((vision|text):)?({'|'.join(map(re.escape, ROLES))})(@-?[0-9]{{1,4}})?$"


@dataclass(frozen=True, slots=True)
class Selector:
    """A role, optionally in one tower and in one layer; negative layers count from the last: `vision:mlp.fc2@-1`."""

    role: Role
    tower: Tower | None = None
    layer: int | None = None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read `[tower:]role[@layer]`. Raises ValueError with what is allowed."""
        found = _SELECTOR.fullmatch(text)
        if found is None:
            raise ValueError(f"must be [tower:]role[@layer] such as mlp.fc2 or vision:mlp.fc2@-1, not {text[:60]!r}")
        tower, role, layer = found.groups()
        if role not in ROLES:
            raise ValueError(f"no role {role[:60]!r} ({did_you_mean(role, ROLES)})")
        if layer is not None and role not in _NUMBERED:
            raise ValueError(f"{role} is there once and has no layers; write {role!r}")
        return cls(cast(Role, role), cast("Tower | None", tower), None if layer is None else int(layer))

    def __str__(self) -> str:
        tower = f"{self.tower}:" if self.tower else ""
        return f"{tower}{self.role}" + ("" if self.layer is None else f"@{self.layer}")


def _readable(text: str) -> str:
    Selector.parse(text)
    return text


SelectorText = Annotated[str, AfterValidator(_readable), WithJsonSchema({"type": "string", "pattern": _PATTERN})]
"""Text that `Selector.parse` reads."""
