"""Watching what flows into the sites of a tower while calibration data run through its float graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compress.core.errors import UsageError
from compress.models.tower import Site, Tower
from compress.steps.step import Context
from compress.targets.graph.session import open_session, run


def watch(
    tower: Tower, sites: Sequence[Site], context: Context, visit: Callable[[str, NDArray[np.float32]], None]
) -> dict[str, str]:
    """Run the calibration data; call `visit(value, array)` for every value that feeds a site, batch by batch.

    Returns the name of the value that feeds each site. Values shared by several sites are visited once.
    """
    if context.feeds is None:
        raise UsageError(
            "this step needs calibration data", "data.calibration", "add data: {calibration: {source: ...}}"
        )
    feeding = {node.name: node.input[0] for node in tower.graph.graph.node}
    source = {site.name: feeding[site.node] for site in sites}
    inputs = set(tower.inputs)
    values = sorted(set(source.values()) - inputs)
    session = open_session(with_outputs(tower.graph, values))
    seen = 0
    for batch in context.progress.track(context.feeds(tower.kind), f"calibrate {tower.kind}"):
        feed = {name: batch[name] for name in tower.inputs}
        for name, array in zip(values, run(session, values, feed) if values else [], strict=True):
            visit(name, np.asarray(array, np.float32))
        for name in inputs.intersection(source.values()):
            visit(name, np.asarray(feed[name], np.float32))
        seen += 1
    if not seen:
        raise UsageError(f"there is no calibration data for the {tower.kind} tower", "data.calibration")
    return source


def with_outputs(graph: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy of the graph that also returns the named float values."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    have = {value.name for value in model.graph.output}
    new = [name for name in values if name not in have]
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in new)
    return model
