"""What a student's weights start from: those of a larger model of the same kind, as far as they fit (2309.12314)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import NDArray

Array = NDArray[Any]

_LAYER: Final = re.compile(r"^(.*?(?:^|\.))(\d+)(\..*)$")
"""A weight of a block: what stands before the block's number, the number, and what stands behind it."""


def spread(own: int, other: int) -> tuple[int, ...]:
    """For each of a student's layers, the layer it stands for: evenly spaced, the last one always among them."""
    return tuple(round((at + 1) * other / own) - 1 for at in range(own))


def inherited(
    shapes: Mapping[str, tuple[int, ...]], base: Mapping[str, Array], depths: tuple[int, int] | None
) -> dict[str, Array]:
    """Those weights of a student, by name, that a larger model has in the same shape; a layer gets all of its or none.

    `depths` are the numbers of layers of student and base. A block gets the weights of the block that it stands for;
    none where the base has fewer blocks. Without `depths` a number is part of a name as any other.
    """
    own, other = depths or (0, 0)
    places = spread(own, other) if 0 < own <= other else ()
    found: dict[str, Array] = {}
    unlike: set[str] = set()
    for name, shape in shapes.items():
        values = base.get(_source(name, None if depths is None else places))
        if values is not None and tuple(values.shape) == tuple(shape):
            found[name] = values
        else:
            unlike.add(name.rpartition(".")[0])
    return {name: values for name, values in found.items() if name.rpartition(".")[0] not in unlike}


def _source(name: str, places: tuple[int, ...] | None) -> str:
    """The base's name of what a weight stands for; "" where there is none."""
    block = None if places is None else _LAYER.match(name)
    if block is None or places is None:
        return name
    layer = int(block[2])
    return f"{block[1]}{places[layer]}{block[3]}" if layer < len(places) else ""
