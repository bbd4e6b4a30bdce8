"""Where a block's branch joins the stream that runs through a tower: the places that methods calibrate at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from compress.models.graph import initializers, reads
from compress.models.tower import Site, Tower


@dataclass(frozen=True, slots=True)
class Junction:
    """A product at the end of a branch: `inner` is what it reads, `joined` its output with bias and stream added.

    `residual` is the value of the stream that it is added to; None where the branch is added to nothing, and then
    `joined` is its output with the bias.
    """

    site: Site
    inner: str
    residual: str | None
    joined: str


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Nodes by the values that they read."""
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(reads(node)):
            found[name].append(node)
    return found


def bias_of(tower: Tower, site: Site) -> tuple[onnx.NodeProto, int] | None:
    """The Add behind a product that gives it its bias, and which of its inputs that is; None where it has none."""
    node = node_named(tower.graph.graph, site.node)
    tensors = initializers(tower.graph)
    following = readers(tower.graph.graph)[node.output[0]]
    if len(following) != 1 or following[0].op_type != "Add":
        return None
    for at, name in enumerate(following[0].input):
        if name in tensors and list(tensors[name].dims) in ([site.shape[-1]], [1, site.shape[-1]]):
            return following[0], at
    return None


def junction(tower: Tower, site: Site) -> Junction:
    """The junction of a product (attention output or fc2)."""
    graph = tower.graph.graph
    node = node_named(graph, site.node)
    tensors, found = initializers(tower.graph), readers(graph)
    biased = bias_of(tower, site)
    value = biased[0].output[0] if biased else node.output[0]
    following = found[value]
    if len(following) == 1 and following[0].op_type == "Add" and not tensors.keys() & set(following[0].input):
        residual = next(name for name in following[0].input if name != value)
        return Junction(site, node.input[0], residual, following[0].output[0])
    return Junction(site, node.input[0], None, value)


def node_named(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """The node of a name."""
    return next(node for node in graph.node if node.name == name)


def in_order(tower: Tower, sites: Iterable[Site]) -> list[Site]:
    """Sites in the order in which the graph computes them."""
    places = {node.name: at for at, node in enumerate(tower.graph.graph.node)}
    return sorted(sites, key=lambda site: places[site.node])


def part(
    model: onnx.ModelProto, known: Iterable[str], wanted: Sequence[str], types: Mapping[str, int] | None = None
) -> onnx.ModelProto:
    """The part of a graph that computes some values where others, of any shape, are known already.

    Values are float where `types` does not say otherwise.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    tensors, given = initializers(model), {value.name: value for value in model.graph.input}
    stop, needed, kept = set(known), set(), set()
    queue = [name for name in wanted if name not in stop]
    while queue:
        name = queue.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in makers and name not in stop:
            kept.add(makers[name].name)
            queue.extend(reads(makers[name]))
    made = onnx.ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.graph.name = "part"
    made.graph.node.extend(node for node in model.graph.node if node.name in kept)
    made.graph.initializer.extend(tensors[name] for name in sorted(needed & tensors.keys()))
    made.graph.input.extend(value for name, value in given.items() if name in needed and name not in tensors)
    floats = [name for name in sorted(needed & stop) if name not in given]
    told = types or {}
    made.graph.input.extend(_value(name, told) for name in floats)
    made.graph.output.extend(_value(name, told) for name in wanted)
    return made


def _value(name: str, types: Mapping[str, int]) -> onnx.ValueInfoProto:
    kind = types.get(name, onnx.TensorProto.FLOAT)
    made: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(name, kind, None)
    return made
