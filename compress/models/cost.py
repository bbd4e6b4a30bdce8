"""What a tower costs before anything is measured: its parameters, and the multiplications of its products."""

from __future__ import annotations

import math

from compress.models.graph import parameter_count
from compress.models.tower import Tower


def parameters(tower: Tower) -> int:
    """Floating point weights of a tower's graph."""
    return parameter_count(tower.graph)


def work(tower: Tower) -> int:
    """Multiplications per token in the products of the blocks; what attention mixes is not counted."""
    return sum(math.prod(site.shape) for site in tower.sites if site.op == "MatMul" and site.layer is not None)


def neurons(tower: Tower) -> int:
    """Neurons of all MLPs: inputs of their last products."""
    return sum(site.shape[0] for site in tower.sites if site.role == "mlp.fc2")
