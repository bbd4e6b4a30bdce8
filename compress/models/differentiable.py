"""A tower's float graph as a torch module: the same numbers, and gradients for its weights.

Whatever is an ONNX graph here can be trained so: exported models, plain ONNX files, pruned ones. The weights keep the
names they have in the graph, so that trained ones can be put back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from compress.core.errors import CompressError, UsageError
from compress.models.graph import array, initializers
from compress.models.operators import OPERATORS, arithmetic
from compress.models.operators.operator import Operator
from compress.models.tower import Tower

Hook = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Changes the inputs that a node computes with, such as by rounding them as integers would be."""

_STATISTICS: Final = {"BatchNormalization": (3, 4)}
"""Inputs that were measured, not trained."""

_LARGEST: Final = 1e4
"""What is larger is no weight: masks are filled with the lowest number there is."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A node, ready to be run; `done` are the values that nobody reads after it."""

    name: str
    function: Operator
    options: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    together: bool
    done: tuple[str, ...]


class DifferentiableTower(nn.Module):
    """A tower that torch runs. `taps` are names of values inside the graph that are wanted besides the embedding.

    `hooks` stand before nodes, by their names; one with parameters of its own has them as `learned`. Raises UsageError
    for a graph with an operator that is not known.
    """

    def __init__(self, tower: Tower, taps: Sequence[str] = (), hooks: Mapping[str, Hook] | None = None) -> None:
        super().__init__()
        self.inputs, self.output, self.taps = tower.inputs, tower.output, tuple(taps)
        self._hooks = dict(hooks or {})
        self.learned = nn.ParameterList(each for hook in self._hooks.values() for each in getattr(hook, "learned", ()))
        held = initializers(tower.graph)
        trained = trainable(tower.graph)
        self.names = tuple(name for name in held if name in trained)
        self._weights = nn.ParameterList(nn.Parameter(_tensor(held[name])) for name in self.names)
        self._fixed = tuple(name for name in held if name not in trained)
        for at, name in enumerate(self._fixed):
            self.register_buffer(f"fixed_{at}", _tensor(held[name]), persistent=False)
        self._steps = _steps(tower, {self.output, *self.taps})

    def weights(self) -> dict[str, nn.Parameter]:
        """The trainable weights by the names of the graph's initializers."""
        return dict(zip(self.names, self._weights, strict=True))

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> DifferentiableTower:
        """Move floats alone: shapes and places are read on the CPU, wherever the weights are."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self.integers_to_cpu()
        return self

    def integers_to_cpu(self) -> None:
        """Put fixed values that are no floats where they are read."""
        for at in range(len(self._fixed)):
            value = getattr(self, f"fixed_{at}")
            if not value.is_floating_point():
                setattr(self, f"fixed_{at}", value.cpu())

    def forward(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The embedding (batch, D) and every tap, by name."""
        values: dict[str, Tensor] = {name: feed[name] for name in self.inputs}
        values |= self.weights()
        values |= {name: getattr(self, f"fixed_{at}") for at, name in enumerate(self._fixed)}
        for step in self._steps:
            given: Sequence[Any] = [values[name] if name else None for name in step.inputs]
            if step.together:
                given = _together(given)
            if step.name in self._hooks:
                given = self._hooks[step.name](given)
            made = step.function(step.options, given)
            values.update(zip(step.outputs, [made] if isinstance(made, Tensor) else made, strict=False))
            for name in step.done:
                del values[name]
        return {name: values[name] for name in (self.output, *self.taps)}


def write_back(tower: Tower, trained: DifferentiableTower) -> None:
    """Put trained weights into the tower's graph, in place."""
    held = initializers(tower.graph)
    for name, weight in trained.weights().items():
        values = weight.detach().to("cpu", torch.float32).numpy()
        held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def trainable(model: onnx.ModelProto) -> set[str]:
    """Names of the weights: float tensors of more than one number that are no masks and no measured statistics."""
    held = initializers(model)
    fixed = {
        node.input[at] for node in model.graph.node for at in _STATISTICS.get(node.op_type, ()) if len(node.input) > at
    }
    found = set()
    for name, tensor in held.items():
        if tensor.data_type == onnx.TensorProto.FLOAT and name not in fixed:
            values = array(tensor)
            if values.size > 1 and np.isfinite(values).all() and np.abs(values).max() <= _LARGEST:
                found.add(name)
    return found


def unknown(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operators of a graph that torch cannot run here; none for most."""
    return tuple(sorted({each.op_type for each in model.graph.node} - set(OPERATORS)))


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(array(tensor).copy())


def _steps(tower: Tower, kept: set[str]) -> list[_Step]:
    """The nodes that are needed, in order."""
    graph = tower.graph.graph
    last: dict[str, int] = {name: at for at, node in enumerate(graph.node) for name in (*node.input, *node.output)}
    own = {name for node in graph.node for name in node.output}
    if missing := kept - own:
        raise CompressError(f"the {tower.kind} tower computes no value {sorted(missing)[0]!r}")
    ends: dict[int, list[str]] = {}
    for name, at in last.items():
        if name in own and name not in kept:
            ends.setdefault(at, []).append(name)
    return [_step(tower, node, tuple(ends.get(at, ()))) for at, node in enumerate(graph.node)]


def _step(tower: Tower, node: onnx.NodeProto, done: tuple[str, ...]) -> _Step:
    function = OPERATORS.get(node.op_type)
    if function is None:
        raise UsageError(
            f"a graph with {', '.join(unknown(tower.graph))} cannot be trained",
            f"{tower.kind} tower, {node.name}",
            "leave this tower out of the step with `towers`",
        )
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    together = node.op_type in arithmetic.OPERATORS or node.op_type in {"Concat", "MatMul"}
    return _Step(node.name, function, options, tuple(node.input), tuple(node.output), together, done)


def _together(given: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """All inputs on the device that one of them is on."""
    away = next((each.device for each in given if each is not None and each.device.type != "cpu"), None)
    return given if away is None else [each if each is None else each.to(away) for each in given]
