"""Every size that is not fixed has a smallest, a usual and a largest value."""

from __future__ import annotations

from collections.abc import Iterator

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View

ID = "TRT008"
WHY = "an engine is built for a range of shapes, and for no others"

_ENDS = ("min", "opt", "max")


def find(view: View) -> Iterator[Finding]:
    """Inputs that the profile does not cover."""
    for value in view.model.graph.input:
        if value.name in view.tensors:
            continue
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if all(sizes):
            continue
        told = (view.profile or {}).get(value.name)
        if told is None:
            yield Finding(ID, value.name, "has sizes that are not fixed, and no profile shapes")
        elif reason := _wrong(sizes, [told.get(end, []) for end in _ENDS]):
            yield Finding(ID, value.name, reason)


def _wrong(sizes: list[int], ends: list[list[int]]) -> str:
    if any(len(end) != len(sizes) for end in ends):
        return f"its profile shapes have not the {len(sizes)} sizes of the input"
    for size, *three in zip(sizes, *ends, strict=True):
        if three != sorted(three) or three[0] < 1:
            return f"its profile shapes are not in order: {three}"
        if size and set(three) != {size}:
            return f"its profile shapes change a size that is fixed at {size}"
    return ""
