"""The dialect of the standard ONNX domain: explicit Q/DQ with zero point 0, weights as integers, strong types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.models.graph import drop_unused
from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, BnbWeights, Float16, StaticFloat8, StaticInt8, Treatment
from compress.targets.graph.emitter import Rewriter, refusal, rewritten
from compress.targets.graph.half import halved

BLOCKS: Final = (64, 128)
"""Sizes of int4 blocks that TensorRT has kernels for (TensorRT documentation, quantization schemes)."""

_OPSETS: Final = {onnx.TensorProto.INT4: (21, 10), onnx.TensorProto.FLOAT8E4M3FN: (19, 9)}
"""Type -> first opset and IR version that have it."""

_WHOLE_BUMP: Final = 20
"""From this opset to the next only the types that operators take have grown, save for GroupNormalization."""


def emit(tower: Tower) -> onnx.ModelProto:
    """The tower's graph with every treated site replaced, in half precision where a site is treated so.

    Raises UsageError for a treatment that strongly typed, standard-domain files cannot hold.
    """
    return in_half(_emit)(tower)


def in_half(emit: Callable[[Tower], onnx.ModelProto]) -> Callable[[Tower], onnx.ModelProto]:
    """The same emitter, whose graph is put into half precision where a site of the tower is treated so."""
    return lambda tower: _in_half(emit(tower), tower)


def _emit(tower: Tower) -> onnx.ModelProto:
    model = rewritten(tower, _Standard)
    _raise_opset(model, tower)
    return model


def _in_half(model: onnx.ModelProto, tower: Tower) -> onnx.ModelProto:
    halves = [each for each in tower.treatments.values() if isinstance(each, Float16)]
    if halves:
        wide = frozenset(str(name) for each in halves for name in each.wide)
        model = halved(model, frozenset(site.node for site in tower.sites if site.name not in tower.treatments), wide)
        drop_unused(model.graph)
    return model


class _Standard(Rewriter):
    """Writes DequantizeLinear where ONNX Runtime has kernels of its own. Half-stored weights stay as they are."""

    def product(self, site: Site, treatment: Treatment) -> Callable[[str, str], None]:
        """A function that emits the treated matrix product from a value to a value."""
        if isinstance(treatment, Float16):
            return Rewriter.product(self, site, treatment)
        if isinstance(treatment, BlockWeights):
            codes, scales, options = _signed(site, treatment)
            return lambda value, output: self._weight_only((site, codes, scales, options), value, output)
        if isinstance(treatment, BnbWeights):
            raise refusal(site, treatment)
        integers: NDArray[np.generic] = treatment.codes
        if isinstance(treatment, StaticFloat8):
            integers = treatment.codes.view(ml_dtypes.float8_e4m3fn)
        return lambda value, output: self._both(
            (site, integers, treatment.scales), self._rounded(value, treatment), output
        )

    def table(self, node: onnx.NodeProto, site: Site, treatment: Treatment) -> None:
        """Emit a treated table and what reads its rows."""
        if isinstance(treatment, BlockWeights):
            raise UsageError(
                "TensorRT has no Gather on integers in blocks",
                site.name,
                "leave embedding out of this step, or store it in half precision with quantize.fp16",
            )
        if not isinstance(treatment, Float16):
            raise refusal(site, treatment)
        Rewriter.table(self, node, site, treatment)

    def _weight_only(
        self, held: tuple[Site, NDArray[np.generic], NDArray[np.float32], dict[str, int]], value: str, output: str
    ) -> None:
        site, codes, scales, options = held
        names = [self.weight(f"{site.weight}_q", codes), self.weight(f"{site.weight}_scales", scales)]
        weight = self.node("DequantizeLinear", names, f"{output}_weight", "", **options)
        self.node("MatMul", [value, weight], output)

    def _both(self, held: tuple[Site, NDArray[np.generic], NDArray[np.float32]], value: str, output: str) -> None:
        site, codes, scales = held
        names = [self.weight(f"{site.weight}_q", codes.T), self.weight(f"{site.weight}_scales", scales)]
        weight = self.node("DequantizeLinear", names, f"{output}_weight", axis=1)
        self.node("MatMul", [value, weight], output)

    def _rounded(self, value: str, treatment: StaticInt8 | StaticFloat8) -> str:
        """The value after Q/DQ with zero point 0, shared by all sites that round it alike."""
        zero: NDArray[np.generic]
        if isinstance(treatment, StaticFloat8):
            zero, kind, size = np.zeros((), ml_dtypes.float8_e4m3fn), "f8", treatment.input_scale
        else:
            zero, kind, size = np.zeros((), np.int8), "s8", treatment.symmetric_scale
        key = (f"{kind} {value}", size)
        if key not in self.shared:
            base = f"{value}_{kind}_{len(self.shared)}"
            scale = np.float32(size)
            ends = [self.weight(f"{base}_scale", scale), self.weight(f"{base}_zero", zero)]
            codes = self.node("QuantizeLinear", [value, *ends], f"{base}_q")
            self.shared[key] = self.node("DequantizeLinear", [codes, *ends], f"{base}_dq")
        return self.shared[key]


def _signed(site: Site, held: BlockWeights) -> tuple[NDArray[np.generic], NDArray[np.float32], dict[str, int]]:
    """Codes (in, out) around zero, their scales, and how DequantizeLinear reads them."""
    if held.compute == "int8":
        hint = "leave out compute: int8, or use quantize.int8_static"
        raise UsageError("TensorRT does not round inputs in blocks as it runs", site.name, hint)
    if held.zero_points is not None:
        raise UsageError("TensorRT takes no zero points", site.name, "round with symmetric: true")
    middle = 1 << (held.bits - 1)
    codes = (held.codes.astype(np.int16) - middle).reshape(len(held.codes), -1)[:, : held.columns].astype(np.int8).T
    if held.bits == 4:
        if held.block not in BLOCKS or held.columns % held.block:
            known = " or ".join(map(str, BLOCKS))
            what = (
                f"TensorRT takes int4 in whole blocks of {known}, not {held.columns} inputs in blocks of {held.block}"
            )
            raise UsageError(what, site.name, f"use block: {known} where it divides, or quantize.int8_static")
        return codes.astype(ml_dtypes.int4), held.scales.T, {"axis": 0, "block_size": held.block}
    if (held.scales != held.scales[:, :1]).any():
        raise UsageError(
            "TensorRT takes 8-bit weights with one scale for each output, not in blocks",
            site.name,
            "use quantize.int8_static, or scale_per: tensor",
        )
    return codes, held.scales[:, 0], {"axis": 1}


def _raise_opset(model: onnx.ModelProto, tower: Tower) -> None:
    """Declare the opset that the types of the file need. Raises UsageError where that would change what nodes mean."""
    needed = [_OPSETS[tensor.data_type] for tensor in model.graph.initializer if tensor.data_type in _OPSETS]
    opset, version = max(needed, default=(0, 0))
    declared = next(each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    model.ir_version = max(model.ir_version, version)
    if declared.version >= opset:
        return
    if declared.version < _WHOLE_BUMP or any(node.op_type == "GroupNormalization" for node in model.graph.node):
        raise UsageError(
            f"its types need opset {opset}, the graph has {declared.version}",
            f"{tower.kind} tower",
            "export it again with a newer opset, or convert it with onnx.version_converter",
        )
    declared.version = opset
