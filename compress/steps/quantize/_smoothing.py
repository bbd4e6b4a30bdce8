"""Bringing the channels of inputs closer to each other before they are rounded with one scale, at the weights' cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compress.models.tower import Site, Tower
from compress.steps.quantize import _fold, _rescale
from compress.steps.quantize._ranges import Ranges, smoothing
from compress.targets.graph.emitter import weight_matrix

Group = Sequence[Site]
"""Sites that read one value."""


def groups(tower: Tower, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites by the value that they read, in their order."""
    feeding = {node.name: node.input[0] for node in tower.graph.graph.node}
    made: dict[str, list[Site]] = {}
    for site in sites:
        made.setdefault(feeding[site.node], []).append(site)
    return list(made.values())


def fold_all(tower: Tower, sites: Sequence[Site], ranges: Mapping[str, Ranges], strength: float) -> bool:
    """Move part of the inputs' ranges into the weights wherever something before them can be divided, in place."""
    found = list(_fold.sources(tower, sites))
    for source in found:
        _fold.fold(tower, source, _scales(tower, source.sites, ranges, strength))
    return bool(found)


def rescale(tower: Tower, chosen: Sequence[Group], ranges: Mapping[str, Ranges], strength: float) -> list[Site]:
    """Do so for some inputs, by a multiplication in the graph where nothing can be divided, in place.

    Returns the sites whose input is another one now.
    """
    folds = {
        source.sites[0].name: source for source in _fold.sources(tower, [site for each in chosen for site in each])
    }
    changed: list[Site] = []
    for group in chosen:
        if (source := folds.get(group[0].name)) is not None:
            _fold.fold(tower, source, _scales(tower, group, ranges, strength))
        elif _rescale.possible(tower, group):
            _rescale.rescale(tower, group, _scales(tower, group, ranges, strength))
        else:
            continue
        changed += group
    return changed


def _scales(tower: Tower, group: Group, ranges: Mapping[str, Ranges], strength: float) -> _fold.Scales:
    largest = np.max([np.abs(weight_matrix(tower, site)).max(0) for site in group], 0).astype(np.float64)
    return smoothing(ranges[group[0].name].channels, largest, strength)
