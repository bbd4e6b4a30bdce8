"""LayerNormalization is one node, and sums in float."""

from __future__ import annotations

from collections.abc import Iterator

from compress.targets.lint.finding import Finding
from compress.targets.lint.view import View, options

ID = "TRT004"
WHY = "in parts and in half precision it has dropped ViT-B to 19 %"

_SQUARES = {"Pow", "Mul"}


def find(view: View) -> Iterator[Finding]:
    """A mean of squares of what a mean was subtracted from, and layer normalizations that sum in half precision."""
    for node in view.nodes("ReduceMean"):
        squared = view.maker(node, 0)
        if squared is None or squared.op_type not in _SQUARES:
            continue
        centred = view.maker(squared, 0)
        if squared.op_type == "Mul" and squared.input[0] != squared.input[1]:
            continue
        mean = view.maker(centred, 1) if centred is not None and centred.op_type == "Sub" else None
        if mean is not None and mean.op_type == "ReduceMean":
            yield Finding(ID, node.name, "is the variance of a layer normalization in parts")
    for node in view.nodes("LayerNormalization"):
        if options(node).get("stash_type", 1) != 1:
            yield Finding(ID, node.name, "does not sum in float (stash_type)")
