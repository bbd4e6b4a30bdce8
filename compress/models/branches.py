"""Taking a residual branch out of a tower's float graph: the stream passes by where the branch was added to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from compress.core.errors import UsageError
from compress.models.junctions import Junction, in_order, junction, node_named
from compress.models.surgery import refresh
from compress.models.tower import Site, Tower

ENDS: Final = ("attn.out", "mlp.fc2")
"""Roles of the products at the end of a branch."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What goes as a whole: `ends` are the products that end its branches, `sites` all weights in it."""

    name: str
    layer: int
    ends: tuple[Site, ...]
    sites: tuple[Site, ...]


def units(tower: Tower, apart: bool) -> list[Unit]:
    """The residual blocks of a tower in order; their attentions and MLPs on their own with `apart`."""
    layers: dict[int, list[Site]] = {}
    for site in tower.sites:
        if site.layer is not None and site.role.startswith(("attn.", "mlp.")):
            layers.setdefault(site.layer, []).append(site)
    kinds = (("attn.", "attention of block"), ("mlp.", "MLP of block")) if apart else (("", "block"),)
    made = []
    for layer, sites in sorted(layers.items()):
        for start, name in kinds:
            inner = [site for site in sites if site.role.startswith(start)]
            ends = in_order(tower, (site for site in inner if site.role in ENDS))
            if ends:
                made.append(Unit(f"{name} {layer}", layer, tuple(ends), tuple(inner)))
    places = {node.name: at for at, node in enumerate(tower.graph.graph.node)}
    return sorted(made, key=lambda unit: places[unit.ends[0].node])


def bypass(tower: Tower, unit: Unit) -> str:
    """Take a unit out, in place; returns the name of the value that the stream has behind it, now as before.

    Raises UsageError for a branch that is added to no stream.
    """
    value = ""
    for end in unit.ends:
        found = junction(tower, end)
        if found.residual is None:
            raise UsageError(f"{unit.name} adds to no stream", end.name, "exclude this layer")
        _join(tower, found, found.residual)
        value = found.joined
    refresh(tower)
    return value


def _join(tower: Tower, found: Junction, residual: str) -> None:
    """Let what the branch is added to take the sum's name: readers of either, and outputs, find it there."""
    graph = tower.graph.graph
    maker = next((node for node in graph.node if residual in node.output), None)
    if maker is None:
        raise UsageError("the stream begins with an input", found.site.name, "exclude this layer")
    added = next(node for node in graph.node if found.joined in node.output)
    graph.node.remove(added)
    maker.output[list(maker.output).index(residual)] = found.joined
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == residual:
                node.input[at] = found.joined


def neighbour(tower: Tower, value: str, banned: Iterable[str]) -> Site | None:
    """The product that can give what is gone before a value of the stream: the one whose sum it is, else the next fc2.

    None where there is none, or only such as are `banned` by name.
    """
    free = [site for site in in_order(tower, _ends(tower)) if site.name not in set(banned)]
    before = next((site for site in free if junction(tower, site).joined == value), None)
    return before or next((site for site in _behind(tower, value, free) if site.role == "mlp.fc2"), None)


def _ends(tower: Tower) -> list[Site]:
    return [site for site in tower.sites if site.role in ENDS]


def _behind(tower: Tower, value: str, sites: Sequence[Site]) -> list[Site]:
    """Those of some products that the graph computes after a value."""
    nodes = list(tower.graph.graph.node)
    places = {node.name: at for at, node in enumerate(nodes)}
    made = next((at for at, node in enumerate(nodes) if value in node.output), -1)
    return [site for site in sites if places[node_named(tower.graph.graph, site.node).name] > made]
