"""Finding the sites of a graph: by module path where the exporter kept it, by what it computes otherwise."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import onnx

from compress.models.families.family import TowerParts
from compress.models.graph import initializers
from compress.models.tower import Site

Walk = Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]
_WEIGHTED = {"MatMul": 1, "Conv": 1, "Gather": 0}  # op -> position of its weight
_ACTIVATIONS = {"Gelu", "Erf", "Tanh", "Sigmoid", "Relu", "QuickGelu", "FastGelu", "Swish"}


def by_module_path(model: onnx.ModelProto, parts: TowerParts) -> tuple[Site, ...]:
    """Sites of a graph whose nodes still carry the exporter's module paths."""
    found = []
    for node, weight in _weighted(model):
        path = _module_path(node)
        if (role := parts.role(path)) is not None:
            found.append(_site(path, role, node, weight))
    return tuple(found)


def _module_path(node: onnx.NodeProto) -> str:
    """The path of the innermost module a node was exported from, '' when it says none."""
    scopes = next((item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), "[]")
    named = [scope for scope in ast.literal_eval(scopes) if scope]
    return str(named[-2]) if len(named) > 1 else ""


def by_topology(model: onnx.ModelProto) -> tuple[Site, ...]:
    """Sites of any graph, their roles told from what stands before and after each weight.

    What feeds an activation is fc1 and what reads one is fc2; what feeds a product of two activations is q, k or v
    and what reads one is the attention's output; what is left after the last block is the projection. Blocks are
    counted by their fc2. A convolution of the image is the patch embedding, all others are numbered as they come.
    """
    constants = set(initializers(model))
    before: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
    after: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            after[name].append(node)
    found: list[Site] = []
    layer = convolutions = 0
    for node, weight in _weighted(model):
        role = _role(node, constants, before, after)
        if role is None:
            continue
        inner = layer if role.startswith(("attn", "mlp")) else convolutions if role == "conv" else None
        found.append(_site(node.name, (role, inner), node, weight))
        layer += role == "mlp.fc2"
        convolutions += role == "conv"
    return tuple(found)


def tokens_by_topology(model: onnx.ModelProto, sites: Iterable[Site]) -> str | None:
    """The tensor of all tokens after the last block: the sum to which the last fc2 adds its part; None without one."""
    constants = set(initializers(model))
    last = next((site.node for site in reversed(tuple(sites)) if site.role == "mlp.fc2"), None)
    value = next((node.output[0] for node in model.graph.node if node.name == last), None)
    while value is not None:
        readers = [node for node in model.graph.node if value in node.input]
        if len(readers) != 1 or readers[0].op_type not in {"Add", "Mul", "Reshape", "Cast", "Identity"}:
            return None  # a block that is not a plain residual one
        value = str(readers[0].output[0])
        if readers[0].op_type == "Add" and not constants.intersection(readers[0].input):
            return value
    return None


def _role(
    node: onnx.NodeProto,
    constants: set[str],
    before: dict[str, onnx.NodeProto],
    after: dict[str, list[onnx.NodeProto]],
) -> str | None:
    if node.op_type == "Conv":
        return "patch_embed" if node.input[0] not in before else "conv"
    if node.op_type == "Gather":
        return "embedding" if _is_input(node.input[1], constants, before) else None
    ahead = set(_landmarks(node, constants, lambda each: (item for name in each.output for item in after[name])))
    behind = set(_landmarks(node, constants, lambda each: (before[name] for name in each.input if name in before)))
    told = (
        ("mlp.fc2", "activation", behind), ("mlp.fc1", "activation", ahead),
        ("attn.out", "attention", behind), ("attn.qkv", "attention", ahead),
    )  # fmt: skip
    return next((role for role, landmark, met in told if landmark in met), "projection")


def _is_input(name: str, constants: set[str], before: dict[str, onnx.NodeProto]) -> bool:
    """Whether a value is a graph input that was at most reshaped or cast."""
    while name in before:
        if before[name].op_type not in {"Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity"}:
            return False
        name = before[name].input[0]
    return name not in constants


def _landmarks(node: onnx.NodeProto, constants: set[str], walk: Walk) -> Iterator[str]:
    """The landmarks first met from a node in one direction, everything in between passed through."""
    queue, seen = list(walk(node)), set()
    while queue:
        met = queue.pop()
        if met.name in seen:
            continue
        seen.add(met.name)
        if met.op_type in _ACTIVATIONS:
            yield "activation"
        elif met.op_type == "MatMul" and not constants.intersection(met.input):
            yield "attention"
        elif met.op_type in {"MatMul", "Conv"}:
            yield "weight"
        elif met.op_type in {"LayerNormalization", "Softmax", "Shape", "ReduceMean", "GlobalAveragePool"}:
            yield met.op_type
        else:
            queue.extend(walk(met))


def _weighted(model: onnx.ModelProto) -> Iterable[tuple[onnx.NodeProto, onnx.TensorProto]]:
    tensors = initializers(model)
    for node in model.graph.node:
        at = _WEIGHTED.get(node.op_type)
        if at is not None and len(node.input) > at and (weight := tensors.get(node.input[at])) is not None:
            floating = weight.data_type == onnx.TensorProto.FLOAT
            if floating and len(weight.dims) == (4 if node.op_type == "Conv" else 2):
                yield node, weight


def _site(name: str, role: tuple[str, int | None], node: onnx.NodeProto, weight: onnx.TensorProto) -> Site:
    return Site(name, role[0], role[1], node.op_type, node.name, weight.name, tuple(weight.dims))
