"""The operators of float ONNX graphs as differentiable torch functions: the attributes and the inputs, to the outputs.

An input that a node leaves out is None. Shapes and other integers stay tensors on the CPU, wherever the floats are.
"""

from __future__ import annotations

from typing import Final

from compress.models.operators import arithmetic, layers, reductions, shapes
from compress.models.operators.operator import Operator

OPERATORS: Final[dict[str, Operator]] = {
    **arithmetic.OPERATORS,
    **layers.OPERATORS,
    **reductions.OPERATORS,
    **shapes.OPERATORS,
}
"""Operators by name, of the standard domain and of the two activations that ONNX Runtime adds to it."""
