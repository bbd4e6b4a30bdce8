"""Cutting a tower's graph into what comes before its blocks, the blocks one by one, and what comes after them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from compress.models.graph import initializers, reads
from compress.models.junctions import part
from compress.models.tower import Site


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a graph's nodes: the values it starts from, those that the rest of the graph reads of it, its sites.

    `inputs` of a segment are the `outputs` of the one before, those that are only passed on among them; the first
    starts from the graph's inputs, the last ends with its outputs. `layer` is the number of its block, if it is one.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sites: tuple[Site, ...]
    layer: int | None = None

    @property
    def made(self) -> tuple[str, ...]:
        """The outputs that are not passed on."""
        return tuple(name for name in self.outputs if name not in self.inputs)

    def graph(self, model: onnx.ModelProto, types: Mapping[str, int], also: Sequence[str] = ()) -> onnx.ModelProto:
        """The segment as a model of its own, which computes the values of `also` besides."""
        wanted = dict.fromkeys((*self.made, *(name for name in also if name not in self.inputs)))
        return part(model, self.inputs, tuple(wanted), types)


def segments(model: onnx.ModelProto, sites: Sequence[Site]) -> tuple[Segment, ...]:
    """The segments of a graph in order. Blocks whose nodes are mixed with each other are one segment."""
    nodes = list(model.graph.node)
    places = {node.name: at for at, node in enumerate(nodes)}
    blocks = _blocks(sites, places)
    ends = _Ends(model, nodes)
    starts = [0, *(ends.narrowest(low, high) for low, high in _gaps(blocks, sites, places, len(nodes)))]
    borders = [*starts, len(nodes)]
    values = [ends.inputs, *(ends.alive(at) for at in starts[1:]), ends.outputs]
    made = []
    for at, (low, high) in enumerate(itertools.pairwise(borders)):
        own = tuple(site for site in sites if low <= places[site.node] < high)
        layers = {site.layer for site in own if site.layer is not None}
        made.append(Segment(values[at], values[at + 1], own, min(layers) if len(layers) == 1 else None))
    return tuple(made)


def _blocks(sites: Sequence[Site], places: Mapping[str, int]) -> list[tuple[int, int]]:
    """First and last node of each block, in order; those that overlap are joined."""
    ranges: dict[int, tuple[int, int]] = {}
    for site in sites:
        if site.layer is not None:
            at = places[site.node]
            low, high = ranges.get(site.layer, (at, at))
            ranges[site.layer] = min(low, at), max(high, at)
    made: list[tuple[int, int]] = []
    for low, high in sorted(ranges.values()):
        if made and low <= made[-1][1]:
            made[-1] = made[-1][0], max(made[-1][1], high)
        else:
            made.append((low, high))
    return made


def _gaps(
    blocks: Sequence[tuple[int, int]], sites: Sequence[Site], places: Mapping[str, int], count: int
) -> list[tuple[int, int]]:
    """Between which nodes to cut: before each block, and behind the last. Sites outside of blocks are not cut off."""
    if not blocks:
        return []
    others = sorted(places[site.node] for site in sites if site.layer is None)
    before = max((at for at in others if at < blocks[0][0]), default=-1)
    after = min((at for at in others if at > blocks[-1][1]), default=count - 1)
    lows = [before, *(high for _, high in blocks)]
    highs = [*(low for low, _ in blocks), after]
    return list(zip(lows, highs, strict=True))


class _Ends:
    """Which values are alive between two nodes: made before, or given, and read after."""

    def __init__(self, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
        constants = set(initializers(model))
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
        self.outputs = tuple(value.name for value in model.graph.output)
        self._made = dict.fromkeys(self.inputs, -1)
        for at, node in enumerate(nodes):
            if any(name in self._made for name in reads(node)):  # what is computed of constants alone is cut nowhere
                self._made |= dict.fromkeys((name for name in node.output if name), at)
        self._read = {name: at for at, node in enumerate(nodes) for name in reads(node)}
        self._read |= dict.fromkeys(self.outputs, len(nodes))

    def alive(self, at: int) -> tuple[str, ...]:
        """Values made before node `at` that it or a later one reads."""
        return tuple(name for name, made in self._made.items() if made < at <= self._read.get(name, -1))

    def narrowest(self, low: int, high: int) -> int:
        """The first place behind node `low`, and not behind node `high`, where the fewest values are alive."""
        return min(range(low + 1, high + 1), key=lambda at: len(self.alive(at)))
