"""From a tower's float graph and its treatments to the quantized graph: one piece for every method and every source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.graph import array, drop_unused, initializers
from compress.models.kept import Kept
from compress.models.spool import Spool
from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, BnbWeights, Float16, StaticFloat8, StaticInt8, Treatment
from compress.targets.graph.correction import UNCORRECTED, merge_corrections

CONTRIB = "com.microsoft"
LEVELS: Final = {"float": 1, "int8": 4}
"""`accuracy_level` of MatMulNBits by what it computes with."""


def emit(tower: Tower) -> onnx.ModelProto:
    """The tower's graph with every treated site replaced, for ONNX Runtime on a CPU."""
    return rewritten(tower, Rewriter)


def rewritten(tower: Tower, dialect: type[Rewriter]) -> onnx.ModelProto:
    """The tower's graph with every treated site replaced in the operators of a dialect."""
    model = onnx.ModelProto()
    model.CopyFrom(tower.graph)
    rewriter = dialect(model, spool=_spool(tower))
    sites = {site.node: site for site in tower.sites if site.name in tower.treatments}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        site = sites.get(node.name)
        if site is None:
            rewriter.add(node)
        else:
            rewriter.replace(node, site, tower.treatments[site.name])
    model.graph.initializer.extend(rewriter.tensors.values())
    merge_corrections(model)
    drop_unused(model.graph)
    if any(node.domain == CONTRIB for node in model.graph.node) and CONTRIB not in {
        each.domain for each in model.opset_import
    }:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return model


def _spool(tower: Tower) -> Spool | None:
    """Where the new weights go of a tower whose treatments are in files: they do not fit into memory either."""
    return Spool(tower.treatments.folder / "emitted") if isinstance(tower.treatments, Kept) else None


@dataclass(slots=True)
class Rewriter:
    """Appends nodes to a graph under construction; shares the quantized form of a value among its readers.

    What it writes is the dialect of ONNX Runtime's CPU kernels; another one overrides `product` and `table`.
    """

    model: onnx.ModelProto
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    shared: dict[tuple[str, float], str] = field(default_factory=dict)
    spool: Spool | None = None

    def add(self, node: onnx.NodeProto) -> None:
        self.model.graph.node.append(node)

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **options: Any) -> str:
        self.add(helper.make_node(op, inputs, [output], name=f"{output}_{op}", domain=domain, **options))
        return output

    def weight(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a weight. Sites that share one in the float graph share what it becomes."""
        whole = np.ascontiguousarray(values)
        made = numpy_helper.from_array(whole, name) if self.spool is None else self.spool.add(name, whole)
        if self.tensors.setdefault(name, made) != made:
            raise UsageError("two sites share this weight and are treated differently", name, "treat both in one step")
        return name

    def replace(self, node: onnx.NodeProto, site: Site, treatment: Treatment) -> None:
        """Emit what a treated site becomes."""
        output = node.output[0]
        if node.op_type == "MatMul":
            self.corrected(site, treatment)(node.input[0], output)
        elif node.op_type == "Gather":
            self.table(node, site, treatment)
        elif node.op_type == "Conv" and (rows_columns := grid(self.model, node, site)) is not None:
            self._patchify(node, site, rows_columns, self.corrected(site, treatment))
        elif node.op_type == "Conv" and isinstance(treatment, BlockWeights):
            self._convolution(node, site, treatment)
        elif node.op_type == "Conv":
            raise UsageError(
                "only a convolution that cuts an image of fixed size into whole patches can have integer inputs",
                site.name,
                f"leave {site.role} out of this step, or round its weights alone: quantize.int8_rtn",
            )
        else:
            raise refusal(site, treatment)

    def corrected(self, site: Site, treatment: Treatment) -> Callable[[str, str], None]:
        """A function that emits the treated product, and what is added to it where the treatment says so."""
        product, correction = self.product(site, treatment), getattr(treatment, "correction", None)
        if correction is None:
            return product

        def emitted(value: str, output: str) -> None:
            product(value, f"{output}{UNCORRECTED}")
            self.node("Add", [f"{output}{UNCORRECTED}", self.weight(f"{output}_correction", correction)], output)

        return emitted

    def product(self, site: Site, treatment: Treatment) -> Callable[[str, str], None]:
        """A function that emits the treated matrix product from a value to a value."""
        if isinstance(treatment, StaticInt8):
            return lambda value, output: self._static_int8(site, treatment, value, output)
        if isinstance(treatment, Float16):
            return lambda value, output: self._half(site, treatment, value, output)
        if not isinstance(treatment, BlockWeights):
            raise refusal(site, treatment)
        return lambda value, output: self._matmul_nbits(site, treatment, value, output)

    def table(self, node: onnx.NodeProto, site: Site, treatment: Treatment) -> None:
        """Emit a treated table and what reads its rows."""
        if isinstance(treatment, BlockWeights):
            self._gather(node, site, treatment)
        elif isinstance(treatment, Float16):
            table = self.weight(f"{site.weight}_fp16", treatment.values)
            rows = self.node("Gather", [table, node.input[1]], f"{node.output[0]}_fp16")
            self.node("Cast", [rows], node.output[0], to=onnx.TensorProto.FLOAT)
        else:
            raise refusal(site, treatment)

    def _half(self, site: Site, held: Float16, value: str, output: str) -> None:
        """Stored in half the bytes; this runtime has no product in half precision on most CPUs."""
        stored = self.weight(f"{site.weight}_fp16", held.values.T)
        weight = self.node("Cast", [stored], f"{output}_weight", to=onnx.TensorProto.FLOAT)
        self.node("MatMul", [value, weight], output)

    def _matmul_nbits(self, site: Site, held: BlockWeights, value: str, output: str) -> None:
        names = [value, self.weight(f"{site.weight}_q", packed(held.codes, held.bits))]
        names.append(self.weight(f"{site.weight}_scales", held.scales))
        if held.zero_points is not None:
            names.append(self.weight(f"{site.weight}_zero_points", packed(held.zero_points, held.bits)))
        options = {"K": held.columns, "N": len(held.codes), "bits": held.bits, "block_size": held.block}
        # level 1 computes in float; level 4 rounds what comes in as well, which is another artifact with its own gate
        self.node("MatMulNBits", names, output, CONTRIB, **options, accuracy_level=LEVELS[held.compute])

    def _gather(self, node: onnx.NodeProto, site: Site, held: BlockWeights) -> None:
        codes = held.codes.reshape(len(held.codes), -1)[:, : held.columns]  # this kernel wants no padding
        if held.bits == 4 and held.columns % 2:
            raise UsageError("a table of odd width cannot be packed at 4 bits", site.name, "use quantize.int8_rtn")
        names = [
            self.weight(f"{site.weight}_q", packed(codes, held.bits)),
            node.input[1],
            self.weight(f"{site.weight}_scales", held.scales),
        ]
        if held.zero_points is not None:
            names.append(self.weight(f"{site.weight}_zero_points", packed(held.zero_points, held.bits)))
        options = {"bits": held.bits, "block_size": held.block, "gather_axis": 0, "quantize_axis": 1}
        self.node("GatherBlockQuantized", names, node.output[0], CONTRIB, **options)

    def _static_int8(self, site: Site, held: StaticInt8, value: str, output: str) -> None:
        """Q/DQ on both inputs, float output: ONNX Runtime runs it as one U8S8 integer product."""
        quantized = self._quantized_input(value, held.input_scale, held.zero_point)
        codes = self.weight(f"{site.weight}_q", held.codes.T)
        scales = self.weight(f"{site.weight}_scales", held.scales)
        weight = self.node("DequantizeLinear", [codes, scales], f"{output}_weight", axis=1)
        self.node("MatMul", [quantized, weight], output)

    def _quantized_input(self, value: str, scale: float, zero: int) -> str:
        key = (f"{value} {zero}", scale)
        if key not in self.shared:
            base = f"{value}_u8_{len(self.shared)}"
            ends = [self.weight(f"{base}_scale", np.float32(scale)), self.weight(f"{base}_zero", np.uint8(zero))]
            codes = self.node("QuantizeLinear", [value, *ends], f"{base}_q")
            self.shared[key] = self.node("DequantizeLinear", [codes, *ends], f"{base}_dq")
        return self.shared[key]

    def _convolution(self, node: onnx.NodeProto, site: Site, held: BlockWeights) -> None:
        """A float convolution whose kernel is unpacked in the graph.

        By plain operators on constants: every runtime computes them once, when it opens the file, and then has a float
        kernel as before. It does not do that for GatherBlockQuantized or DequantizeLinear.
        """
        rows, blocks, _ = held.codes.shape
        kernel = f"{node.output[0]}_kernel"
        values = self._unpacked(kernel, self.weight(f"{site.weight}_q", packed(held.codes, held.bits)), held)
        if held.zero_points is None:
            zero = self.weight(f"{kernel}_middle", np.float32(1 << (held.bits - 1)))
        else:
            points = self.weight(f"{site.weight}_zero_points", held.zero_points[..., None])
            zero = self.node("Cast", [points], f"{kernel}_zero", to=onnx.TensorProto.FLOAT)
        scales = self.weight(f"{site.weight}_scales", held.scales[..., None])
        values = self.node("Mul", [self.node("Sub", [values, zero], f"{kernel}_0"), scales], f"{kernel}_1")
        flat = self.weight(f"{kernel}_flat", np.array([rows, -1], np.int64))
        values = self.node("Reshape", [values, flat], f"{kernel}_2")
        if blocks * held.block > held.columns:
            ends = [("start", 0), ("end", held.columns), ("axis", 1)]
            limits = [self.weight(f"{kernel}_{name}", np.array([end], np.int64)) for name, end in ends]
            values = self.node("Slice", [values, *limits], f"{kernel}_3")
        shape = self.weight(f"{kernel}_shape", np.array(site.shape, np.int64))
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.input[1] = self.node("Reshape", [values, shape], f"{kernel}_4")
        self.add(plain)

    def _unpacked(self, base: str, codes: str, held: BlockWeights) -> str:
        """Codes as floats (out, blocks, block); two of 4 bits are in a byte, the first in the low bits."""
        values = self.node("Cast", [codes], f"{base}_bytes", to=onnx.TensorProto.FLOAT)
        if held.bits == 8:
            return values
        four, sixteen = self.weight(f"{base}_four", np.uint8(4)), self.weight(f"{base}_sixteen", np.float32(16))
        high = self.node("BitShift", [codes, four], f"{base}_shifted", direction="RIGHT")
        high = self.node("Cast", [high], f"{base}_high", to=onnx.TensorProto.FLOAT)
        low = self.node("Sub", [values, self.node("Mul", [high, sixteen], f"{base}_above")], f"{base}_low")
        last = self.weight(f"{base}_last", np.array([-1], np.int64))
        pair = [self.node("Unsqueeze", [each, last], f"{each}_column") for each in (low, high)]
        pairs = self.node("Concat", pair, f"{base}_pairs", axis=-1)
        return self.node("Reshape", [pairs, self.weight(f"{base}_codes", np.array(held.codes.shape))], f"{base}_values")

    def _patchify(
        self, node: onnx.NodeProto, site: Site, rows_columns: tuple[int, int], product: Callable[[str, str], None]
    ) -> None:
        """A convolution whose patches do not overlap is a matrix product over patches; emit it as one."""
        rows, columns = rows_columns
        _, channels, height, width = site.shape
        base = f"{node.output[0]}_patches"
        split = self.weight(f"{base}_split", np.array([0, channels, rows, height, columns, width], np.int64))
        flat = self.weight(f"{base}_flat", np.array([0, rows, columns, channels * height * width], np.int64))
        value = self.node("Reshape", [node.input[0], split], f"{base}_0")
        value = self.node("Transpose", [value], f"{base}_1", perm=[0, 2, 4, 1, 3, 5])
        value = self.node("Reshape", [value, flat], f"{base}_2")
        made = f"{base}_3"
        product(value, made)
        if len(node.input) > 2 and node.input[2]:
            made = self.node("Add", [made, node.input[2]], f"{base}_4")
        self.node("Transpose", [made], node.output[0], perm=[0, 3, 1, 2])


def grid(model: onnx.ModelProto, node: onnx.NodeProto, site: Site) -> tuple[int, int] | None:
    """Rows and columns of the patches that a convolution cuts an image into; None where they are not whole or apart."""
    sizes = [
        [each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name == node.input[0]
    ]
    kernel = list(site.shape[2:])
    side = sizes[0][2:] if sizes and len(sizes[0]) == 4 else [0]
    if not patches_apart(node, kernel) or 0 in side or any(np.mod(side, kernel)):
        return None
    return side[0] // kernel[0], side[1] // kernel[1]


def refusal(site: Site, treatment: Treatment) -> UsageError:
    """What to say of a treatment that a target has no operator for."""
    named = type(treatment).__name__
    if isinstance(treatment, BnbWeights):
        return UsageError(f"{named} are no operators of ONNX", site.name, "use target torch, or quantize.gptq")
    if isinstance(treatment, StaticFloat8):
        return UsageError(f"{named} runs on no such target", site.name, "use target tensorrt, or quantize.int8_static")
    return UsageError(f"{named} cannot be applied to {site.op}", site.name, "leave it out of this step")


def patches_apart(node: onnx.NodeProto, kernel: list[int]) -> bool:
    """Whether a convolution's patches neither overlap nor leave anything out between them."""
    options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return (
        list(options.get("strides", [])) == kernel
        and not any(options.get("pads", []))
        and options.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and all(step == 1 for step in options.get("dilations", []))
        and options.get("group", 1) == 1
    )


def packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis packed into bytes, the first in the low bits; odd counts are padded with 0."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], -1)
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def weight_matrix(tower: Tower, site: Site) -> NDArray[np.float32]:
    """A site's float weight as (out, in): rows of a table stay rows, a convolution's kernel is flattened."""
    values = array(initializers(tower.graph)[site.weight]).astype(np.float32)
    # in one order, wherever it was read from: sums, and what is rounded by them, depend on it in the last digit
    return np.ascontiguousarray(values.T) if site.op == "MatMul" else values.reshape(len(values), -1)
