"""Bias correction: what a rounded product loses on average over the calibration data is added back to it.

M. Nagel et al. (arXiv:1906.04721), section 4.2, in its empirical form: E[W x] - E[W' x'] for each output, where x' is
the input as the runtime rounds it. Means are of the float tower's inputs, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, StaticInt8, Treatment
from compress.steps._activations import watch
from compress.steps.step import Context, SiteReport, StepReport
from compress.targets.graph.emitter import weight_matrix

Rows = NDArray[np.float64]


class Mean:
    """Sum over rows of an input (..., d), in float64, and how many there were."""

    def __init__(self) -> None:
        self.total: Rows = np.zeros(0)
        self.rows = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in an array whose last axis is the input of a product. Raises ValueError on NaN or infinity."""
        flat = values.reshape(-1, values.shape[-1])
        total = flat.sum(0, dtype=np.float64)
        if not np.isfinite(total).all():
            raise ValueError("the activations hold NaN or infinity")
        self.total = total if not self.rows else self.total + total
        self.rows += len(flat)

    @property
    def mean(self) -> Rows:
        """Mean of the rows, (d,)."""
        mean: Rows = self.total / (self.rows or 1)
        return mean

    def state(self) -> dict[str, Rows]:
        """Everything that is kept."""
        return {"total": self.total, "rows": np.array(self.rows)}

    @classmethod
    def restored(cls, state: Mapping[str, Rows]) -> Mean:
        """The mean that had this state."""
        made = cls()
        made.total, made.rows = state["total"], float(state["rows"])
        return made


def correct_biases(towers: Mapping[str, Tower], report: StepReport, context: Context) -> StepReport:
    """Give the sites of a report their corrections; returns the report with how far each bias moved.

    A table has no product, and is listed as skipped.
    """
    moved: dict[tuple[str, str], str] = {}
    for kind, tower in towers.items():
        names = {row.site for row in report.rows if row.tower == kind}
        sites = [site for site in tower.sites if site.name in names and site.op != "Gather"]
        if sites:
            moved |= {(kind, name): told for name, told in _correct(tower, sites, context).items()}
    rows = tuple(_noted(row, moved.get((row.tower, row.site), "a table has no bias")) for row in report.rows)
    skipped = len(rows) - len(moved)
    told = f"{report.summary}; {len(moved)} biases corrected" + (f", {skipped} tables skipped" if skipped else "")
    return replace(report, summary=told, rows=rows)


def _noted(row: SiteReport, told: str) -> SiteReport:
    return replace(row, treatment=f"{row.treatment}; {told}")


def _correct(tower: Tower, sites: Sequence[Site], context: Context) -> dict[str, str]:
    """Treat the sites of one tower again with their corrections; returns what to say of each."""
    before = watch(tower, sites, context, Mean)
    rounded = [site for site in sites if isinstance(tower.treatments[site.name], StaticInt8)]
    shadow = _with_rounded_inputs(tower, rounded)
    after = watch(shadow, shadow.sites, context, Mean) if rounded else {}
    told = {}
    for site in sites:
        held = tower.treatments[site.name]
        if not isinstance(held, BlockWeights | StaticInt8):
            continue
        weight = weight_matrix(tower, site).astype(np.float64)
        seen = after.get(site.name, before[site.name]).mean
        lost = correction(weight, before[site.name].mean, restored(held).astype(np.float64), seen)
        tower.treatments[site.name] = replace(held, correction=lost.astype(np.float32))
        told[site.name] = f"bias moved by up to {float(np.abs(lost).max(initial=0.0)):.2g}"
    return told


def correction(weight: Rows, mean: Rows, rounded: Rows, seen: Rows) -> Rows:
    """E[W x] - E[W' x'] of weights (out, in) and mean inputs (in,): (out,)."""
    made: Rows = weight @ mean - rounded @ seen
    return made


def restored(held: Treatment) -> NDArray[np.float32]:
    """The weight (out, in) that the runtime computes with."""
    if isinstance(held, StaticInt8):
        made: NDArray[np.float32] = held.codes * held.scales[:, None]
        return made
    assert isinstance(held, BlockWeights)
    return held.dequantized()


def _with_rounded_inputs(tower: Tower, sites: Sequence[Site]) -> Tower:
    """The float tower with a shadow of each given site beside it, which reads its input as the runtime will round it.

    The sites themselves go on reading float values: each is measured on the float tower, whatever comes before it.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(tower.graph)
    nodes = {node.name: node for node in graph.graph.node}
    made: list[onnx.NodeProto] = []
    for at, site in enumerate(sites):
        held, node = tower.treatments[site.name], nodes[site.node]
        assert isinstance(held, StaticInt8)
        value, scale, zero = f"rounded_{at}", f"rounded_{at}_scale", f"rounded_{at}_zero"
        graph.graph.initializer.append(numpy_helper.from_array(np.array(held.input_scale, np.float32), scale))
        graph.graph.initializer.append(numpy_helper.from_array(np.array(held.zero_point, np.uint8), zero))
        made.append(helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [f"{value}_q"], name=f"{value}_q"))
        made.append(helper.make_node("DequantizeLinear", [f"{value}_q", scale, zero], [value], name=value))
        shadow = onnx.NodeProto()
        shadow.CopyFrom(node)
        shadow.name, shadow.input[0], shadow.output[0] = f"{site.node}_shadow", value, f"{value}_unused"
        made.append(shadow)
    graph.graph.node.extend(made)
    return replace(tower, graph=graph, sites=tuple(replace(site, node=f"{site.node}_shadow") for site in sites))
