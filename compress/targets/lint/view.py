"""A graph as rules look at it: who makes and who reads each value, which are constant, of what type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.targets.graph.types import element_types

Shapes = Mapping[str, Mapping[str, list[int]]]
"""Input -> min, opt and max -> sizes."""


@dataclass(frozen=True)
class View:
    """A model read without its external data, and the profile that its engine is to be built with (None: none)."""

    model: onnx.ModelProto
    profile: Shapes | None = None

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Constants by name: weights, and the values of Constant nodes."""
        held = {each.name: each for each in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant":
                values = [item.t for item in node.attribute if item.name == "value"]
                held |= dict(zip(node.output, values, strict=False))
        return held

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each value."""
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each value."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in filter(None, node.input):
                found[name].append(node)
        return found

    @cached_property
    def _typed(self) -> tuple[dict[str, int], str]:
        try:
            return element_types(self.model), ""
        except Exception as error:  # a graph from elsewhere may contradict itself in any way
            return {name: tensor.data_type for name, tensor in self.tensors.items()}, f"{error}".strip()

    @property
    def types(self) -> dict[str, int]:
        """Element types of values, as far as they can be inferred."""
        return self._typed[0]

    @property
    def contradiction(self) -> str:
        """Why types could not be inferred, or an empty string."""
        return self._typed[1]

    @cached_property
    def opset(self) -> int:
        """The version of the standard domain."""
        return max((each.version for each in self.model.opset_import if each.domain in ("", "ai.onnx")), default=0)

    def nodes(self, *ops: str) -> Iterator[onnx.NodeProto]:
        """The nodes of some operators, all without any."""
        return (node for node in self.model.graph.node if not ops or node.op_type in ops)

    def maker(self, node: onnx.NodeProto, at: int) -> onnx.NodeProto | None:
        """What made a node's input."""
        return self.makers.get(node.input[at]) if len(node.input) > at else None

    def array(self, name: str) -> NDArray[Any] | None:
        """A constant as an array, None where it is none or lies in another file."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def rounds_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a DequantizeLinear reads a constant."""
        return node.input[0] in self.tensors

    def rounds_activation(self, node: onnx.NodeProto | None) -> bool:
        """Whether a node is the DequantizeLinear behind a QuantizeLinear."""
        if node is None or node.op_type != "DequantizeLinear":
            return False
        before = self.maker(node, 0)
        return before is not None and before.op_type == "QuantizeLinear"


def options(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
