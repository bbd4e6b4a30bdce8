"""From a model folder to float ONNX towers without loading a weight: graphs whose large weights are references.

The modules are made with parameters that take no memory, and exported and optimized as `torch_export` does it. What the
optimizer wants to know of a small weight it reads; a large matrix that it transposes is turned in its reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from torch import nn

from compress.core.errors import UsageError
from compress.models import reference
from compress.models.families.family import Family, TowerParts
from compress.models.graph import clean, strip_nodes
from compress.models.reference import Reference
from compress.models.shards import Shards
from compress.models.sites import by_module_path
from compress.models.torch_export import OPSET, WHOLE, TowerWrapper, body_of, dynamic, example_of, quiet
from compress.models.tower import Tower

HELD: Final = 1 << 14
"""Weights of at most so many numbers are held in the graph: biases, norms, scales. The optimizer compares weights of up
to 1024 numbers with each other, so that has to be the least."""


def hollow(make: Callable[[], Any]) -> Any:
    """A torch model whose parameters have their shapes and one number; buffers are as they are made."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = make()
    made: dict[int, nn.Parameter] = {}
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        holder, _, name = path.rpartition(".")
        empty = made.setdefault(
            id(parameter), nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False)
        )
        model.get_submodule(holder)._parameters[name] = empty
    return model.eval()


def export_lazily(model: Any, family: Family, normalize: bool, shards: Shards) -> dict[str, Tower]:
    """Float towers of a hollow model, with references into the shards for weights."""
    towers = {}
    for kind, parts in family.towers.items():
        body = body_of(model, parts)
        body.config._attn_implementation = "eager"
        wrapper = TowerWrapper(model, parts, normalize).eval()
        graph = _Export(wrapper, parts, shards).graph(example_of(body.config, kind))
        sites = by_module_path(graph, parts)
        strip_nodes(graph)
        towers[kind] = Tower(kind, graph, sites, parts.inputs, parts.output, tokens=parts.tokens)
    return towers


@dataclass
class _Export:
    """One export: `places` of the wrapper's weights by initializer, `turned` names of those that were transposed."""

    wrapper: TowerWrapper
    parts: TowerParts
    shards: Shards
    places: dict[str, Reference] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)

    def graph(self, example: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
        """The tower's graph, cleaned."""
        from onnxscript.optimizer import optimize_ir
        from onnxscript.rewriter import onnx_fusions

        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                self.wrapper, example, dynamic_shapes=(dynamic(example),), opset_version=OPSET, dynamo=True,
                verbose=False, optimize=False,
            )  # fmt: skip
            if program is None:
                raise RuntimeError("torch.onnx.export returned nothing")
            model = program.model
            self._unload(model)
            optimize_ir(model, should_fold=self._turn)
            onnx_fusions.fuse(model)
        self._rename(model)
        return clean(self._referring(model))

    def __post_init__(self) -> None:
        """Find every weight before anything is exported. Raises UsageError for one that lacks or has another shape."""
        own = {name for name, _ in self.wrapper.named_parameters(remove_duplicate=False)}
        for name, values in self._weights():
            called = name if self.parts.body else name.removeprefix(f"{WHOLE}.")
            found = _found(called, self.shards)
            if found is None and name in own:
                raise UsageError(f"the weights lack {called}", str(self.shards.files[0].parent))
            if found is None:
                continue  # a buffer that is made and not stored
            if found.shape != tuple(values.shape):
                what = f"{called} is {_by(found.shape)}, and the config says {_by(tuple(values.shape))}"
                raise UsageError(what, str(found.path), "take the config that belongs to the weights")
            self.places[name] = found

    def _unload(self, model: ir.Model) -> None:
        """Let every weight of the shards be read when somebody asks for it."""
        for name, value in model.graph.initializers.items():
            if name in self.places and (held := value.const_value) is not None:
                shape = ir.Shape(held.shape.numpy())
                value.const_value = ir.LazyTensor(self._reading(name), held.dtype, shape, name=name)

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.wrapper.named_parameters(remove_duplicate=False)
        yield from self.wrapper.named_buffers()

    def _reading(self, name: str) -> Callable[[], ir.Tensor[Any]]:
        def read() -> ir.Tensor[Any]:
            place = self.places[name]
            if name in self._unread:
                self._unread.discard(name)
                return ir.Tensor(np.broadcast_to(np.float32(0), place.shape), name=name)
            return ir.Tensor(np.asarray(reference.read(reference.tensor(name, place))), name=name)

        return read

    def _turn(self, node: ir.Node) -> None:
        """Before a large weight is transposed: let that be done to nothing of its shape. The rules stay the default."""
        given = node.inputs[0] if node.op_type == "Transpose" else None
        if given is None or given.name not in self.places or len(self.places[given.name].shape) != 2:
            return
        if math.prod(self.places[given.name].shape) > HELD and len(given.consumers()) == 1:
            self._unread.add(given.name)
            self.turned[str(node.outputs[0].name)] = given.name

    def _rename(self, model: ir.Model) -> None:
        names = [name for name in (self.parts.output, self.parts.tokens) if name is not None]
        for value, name in (*zip(model.graph.inputs, self.parts.inputs), *zip(model.graph.outputs, names)):  # noqa: B905
            value.name = name

    def _referring(self, model: ir.Model) -> onnx.ModelProto:
        """The graph as ONNX, with what was read for it and references to everything else."""
        refer = {}
        for name, value in model.graph.initializers.items():
            place = self.places.get(self.turned.get(name, name))
            if place is not None and math.prod(place.shape) > HELD:
                made = reference.tensor(name, place)
                refer[name] = reference.turned(made, name) if name in self.turned else made
                value.const_value = ir.Tensor(np.zeros(0, np.float32), name=name)
        proto: onnx.ModelProto = ir.serde.serialize_model(model)
        del proto.graph.output[1:]  # the tokens keep their name inside; a tower has one output
        for tensor in proto.graph.initializer:
            if tensor.name in refer:
                tensor.CopyFrom(refer[tensor.name])
            else:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        return proto


def _found(name: str, shards: Shards) -> Reference | None:
    """Where a weight is: by its name, or by the only one that ends like it, as prefixes differ between classes."""
    if name in shards.weights:
        return shards.weights[name]
    like = [key for key in shards.weights if key.endswith(f".{name}") or name.endswith(f".{key}")]
    return shards.weights[like[0]] if len(like) == 1 else None


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
