"""`quantize.int8_rtn`: 8-bit weights, rounded to nearest in blocks; for what 4 bits would hurt.

Meant for embedding tables. ONNX Runtime's 8-bit product of float inputs can be slower than float on a CPU, most of all
at batch 1; `quantize.int8_static` is the fast one.
"""

from __future__ import annotations

from compress.models.tower import Encoder
from compress.steps.quantize.int4_rtn import Spec as _Spec
from compress.steps.quantize.int4_rtn import apply_bits, form_of
from compress.steps.step import Context, Form, StepReport

EXAMPLE = {"block": 32, "include": ["mlp.fc2"]}


class Spec(_Spec):
    """Options of `quantize.int8_rtn`: those of `quantize.int4_rtn`."""


def form(spec: Spec) -> Form:
    """How a product will be held."""
    return form_of(8, spec)


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Round the selected weights of the encoder's towers to 8 bits."""
    return apply_bits("quantize.int8_rtn", 8, encoder, spec, context)
