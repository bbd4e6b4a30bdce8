"""What an operator is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Options = Mapping[str, Any]
Inputs = Sequence[Tensor]
Operator = Callable[[Options, Inputs], "Tensor | Sequence[Tensor]"]


def given(inputs: Inputs, at: int) -> Tensor | None:
    """An input that may be left out."""
    return inputs[at] if len(inputs) > at else None


def whole(value: Tensor) -> list[int]:
    """The integers of a tensor that says a shape, axes or places."""
    return [int(each) for each in value.reshape(-1).tolist()]


def axes_of(options: Options, inputs: Inputs, at: int = 1) -> list[int] | None:
    """Axes, which older operators have as an attribute and newer ones as an input."""
    value = given(inputs, at)
    if value is not None:
        return whole(value)
    told = options.get("axes")
    return None if told is None else list(told)
