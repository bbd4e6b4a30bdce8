"""Changing the weights of a tower's float graph in place: other values, other sizes, a bias where there was none."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.external_data import APART, save
from compress.models.graph import array, drop_unused, initializers
from compress.models.junctions import bias_of, node_named, readers
from compress.models.reference import nbytes
from compress.models.tower import Site, Tower

LARGE: Final = 64_000_000
"""Bytes of weights from which memory is given back."""

Values = NDArray[np.generic]
Places = NDArray[np.intp]

_ELEMENTWISE: Final = {
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Gelu", "Erf", "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Elu",
    "Selu", "Softplus", "HardSwish", "HardSigmoid", "Mish", "Clip", "Cast", "Identity", "Where", "Min", "Max",
    "QuickGelu", "FastGelu", "Swish", "BiasGelu",
}  # fmt: skip
"""What may stand between fc1 and fc2: each output channel depends on the input channel of the same place alone."""


def linear(tower: Tower, site: Site) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (out, in) and bias (out,) of a matrix product; zeros where it has none."""
    tensors = initializers(tower.graph)
    weight = array(tensors[site.weight]).astype(np.float32).T
    biased = bias_of(tower, site)
    if biased is None:
        return weight, np.zeros(len(weight), np.float32)
    node, at = biased
    return weight, array(tensors[node.input[at]]).astype(np.float32).ravel()


def replace(tower: Tower, site: Site, weight: Values, bias: Values | None) -> None:
    """Give a product another weight (out, in) and, unless it is None, another bias (out,)."""
    _set_weight(tower, site, weight)
    if bias is None:
        refresh(tower)
    else:
        shift(tower, site, bias)


def shift(tower: Tower, site: Site, bias: Values) -> None:
    """Give a product another bias (out,), or one where it has none."""
    biased = bias_of(tower, site)
    if biased is not None:
        set_input(tower.graph, *biased, bias)
    else:
        _add_bias(tower, site, bias)
    refresh(tower)


def _set_weight(tower: Tower, site: Site, weight: Values) -> None:
    set_input(tower.graph, node_named(tower.graph.graph, site.node), 1, np.ascontiguousarray(weight.T))


def set_input(model: onnx.ModelProto, node: onnx.NodeProto, at: int, values: Values) -> None:
    """Let a node read other values as one of its weights; others that read the same weight keep theirs."""
    name = node.input[at]
    new = numpy_helper.from_array(values.astype(np.float32), name)
    if sum(list(each.input).count(name) for each in model.graph.node) > 1:
        new.name = free(model, f"{name}_of_{node.name}")
        node.input[at] = new.name
        model.graph.initializer.append(new)
        return
    next(tensor for tensor in model.graph.initializer if tensor.name == name).CopyFrom(new)


def narrow(
    tower: Tower, first: Sequence[Site], second: Site, keep: Places, weight: NDArray[np.floating] | None = None
) -> None:
    """Keep some of the channels between products: outputs of `first` and inputs of `second`.

    `second` gets the weight (out, kept), or keeps what it has of its own: protobuf gives back the memory of nothing
    that was replaced, so nothing is to be written twice. Raises UsageError where something between them mixes channels.
    """
    width = second.shape[0]
    model = tower.graph
    for node in _between(tower, first, second):
        for at, name in enumerate(node.input):
            tensor = initializers(model).get(name)
            if tensor is not None and tensor.dims and tensor.dims[-1] == width:
                set_input(model, node, at, array(tensor)[..., keep])
    tensors = initializers(model)
    for site in first:
        set_input(model, node_named(model.graph, site.node), 1, array(tensors[site.weight])[:, keep])
    _set_weight(tower, second, array(tensors[second.weight])[keep].T if weight is None else weight)
    refresh(tower)


def _between(tower: Tower, first: Sequence[Site], second: Site) -> list[onnx.NodeProto]:
    """The nodes on the way from some products to another one."""
    graph = tower.graph.graph
    found = readers(graph)
    queue = [each for site in first for each in found[node_named(graph, site.node).output[0]]]
    met: dict[str, onnx.NodeProto] = {}
    while queue:
        node = queue.pop()
        if node.name in met or node.name == second.node:
            continue
        if node.op_type not in _ELEMENTWISE:
            raise UsageError(
                f"{node.op_type} stands between {', '.join(site.name for site in first)} and {second.name}",
                second.name,
                "only layers whose channels stay apart in between can be pruned; exclude this one",
            )
        met[node.name] = node
        queue.extend(each for name in node.output for each in found[name])
    return list(met.values())


def _add_bias(tower: Tower, site: Site, bias: Values) -> None:
    model = tower.graph
    node = node_named(model.graph, site.node)
    place = next(at for at, each in enumerate(model.graph.node) if each.name == node.name)
    output, product = node.output[0], free(model, f"{node.output[0]}_product")
    node.output[0] = product
    name = free(model, f"{site.weight}_bias")
    model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
    added = helper.make_node("Add", [product, name], [output], name=free(model, f"{node.name}_bias"))
    nodes = [*model.graph.node[: place + 1], added, *model.graph.node[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def free(model: onnx.ModelProto, wanted: str) -> str:
    """A name that nothing in the graph has."""
    taken = {tensor.name for tensor in model.graph.initializer}
    taken |= {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    return next(name for at in range(len(taken) + 1) if (name := wanted + (f"_{at}" if at else "")) not in taken)


def refresh(tower: Tower) -> None:
    """Let the sites say what their nodes read now, and drop what nobody reads any more."""
    drop_unused(tower.graph.graph)
    nodes, tensors = {node.name: node for node in tower.graph.graph.node}, initializers(tower.graph)
    sites = []
    for site in tower.sites:
        if site.node in nodes:
            weight = nodes[site.node].input[0 if site.op == "Gather" else 1]
            shape = tuple(tensors[weight].dims)
            sites.append(Site(site.name, site.role, site.layer, site.op, site.node, weight, shape))
    tower.sites = tuple(sites)


def large(tower: Tower) -> bool:
    """Whether it is worth while to hold few copies of the tower's weights."""
    return sum(map(nbytes, tower.graph.graph.initializer)) >= LARGE


def compact(tower: Tower) -> None:
    """Give back the memory of what was replaced in a large graph, which protobuf keeps as long as the graph is there.

    It goes through a file: in memory there would be two for a while.
    """
    if tower.streamed or not large(tower):
        return
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "graph.onnx"
        save(tower.graph, path, APART)
        tower.graph = onnx.ModelProto()
        tower.graph = onnx.load(path)
    for tensor in tower.graph.graph.initializer:
        tensor.ClearField("data_location")
