"""Dividing what feeds a product by a scale per channel as it runs, where nothing before it can be divided.

The residual of a post-norm block reads what its products read, and a GELU does not let scales through: `_fold` has no
place there. One multiplication before the product does what the fold does (SmoothQuant, arXiv:2211.10438), and leaves
the graph's answer as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper, numpy_helper

from compress.models.tower import Site, Tower
from compress.steps.quantize._fold import Scales, multiply


def possible(tower: Tower, sites: Sequence[Site]) -> bool:
    """Whether sites that read one value can be given it divided: matrix products, with float weights of their own."""
    held = {site.weight for site in tower.sites if site.name in tower.treatments}
    readers: dict[str, set[str]] = {}
    for node in tower.graph.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    alone = all(readers[site.weight] <= {each.node for each in sites} for site in sites)
    return alone and all(site.op == "MatMul" and site.weight not in held for site in sites)


def rescale(tower: Tower, sites: Sequence[Site], scales: Scales) -> None:
    """Let `sites`, which read one value, read it divided by `scales` (in,), and multiply their weights by it, in place.

    Raises ValueError for a scale that is not a finite positive number.
    """
    graph = tower.graph.graph
    chosen = {site.node for site in sites}
    places = [at for at, node in enumerate(graph.node) if node.name in chosen]
    (value,) = {graph.node[at].input[0] for at in places}
    made = f"{value}_rescaled_{places[0]}"
    multiply(tower, sites, scales)
    inverse = (1 / scales.astype(np.float64)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(inverse, f"{made}_by"))
    for at in places:
        graph.node[at].input[0] = made
    graph.node.insert(places[0], helper.make_node("Mul", [value, f"{made}_by"], [made], name=made))
