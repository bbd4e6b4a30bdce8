"""The strict base of every recipe, policy and task model, and the field types they share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

_NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"


class Strict(BaseModel):
    """Data that means what it says: no unknown key, no conversion between types, no NaN, no change after reading."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text) or ".." in text:
        raise ValueError("must be a name: 1 to 64 of a-z 0-9 _ . - that start with a letter or digit, without '..'")
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _version(number: int) -> int:
    if number != 1:
        raise ValueError(f"must be 1, the only version there is so far, not {number}")
    return number


Version = Annotated[int, AfterValidator(_version), WithJsonSchema({"const": 1})]
"""The version of a document's format (a `Literal[1]` would take `true`)."""

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"})]
"""What may become a file's name: never a path."""

Text = Annotated[str, AfterValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
"""Text that says something."""

Number = float
"""A finite number; `1` is one, `true` and `"1"` are not (strictness comes from `Strict`)."""

PositiveNumber = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
