"""Watching what flows into the sites of a tower while calibration data run through its float graph."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnx
from onnx import helper

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Limits
from compress.models.external_data import APART, save
from compress.models.surgery import large
from compress.models.tower import Site, Tower
from compress.steps.observer import Observer
from compress.steps.step import Context, Feeds
from compress.steps.stream import Walk, stream_of

Seen = TypeVar("Seen", bound=Observer)
_ALONE: Final = "leave it out of this step, or use a method without calibration: quantize.int8_rtn"
Windows = dict[str, dict[str, list[int]]]


def watch(tower: Tower, sites: Sequence[Site], context: Context, observer: type[Seen]) -> Mapping[str, Seen]:
    """Run the calibration data; returns the observer of what feeds each site, by the site's name.

    Sites that are fed by the same value share one observer, which saw every batch once. A product is shown the rows
    (..., in) that it multiplies; a convolution its patches, (batch, patches, in), channels first as in its weight.
    A tower whose weights are in files is run segment by segment, when a site of it is asked for.
    """
    if tower.streamed:
        return _walked(tower, sites, context, observer, context.scratch)
    feeding = {node.name: node.input[0] for node in tower.graph.graph.node}
    source = {site.name: feeding[site.node] for site in sites}
    seen = watch_values(tower, sorted(set(source.values())), context, observer, _windows(tower, sites))
    return {name: seen[value] for name, value in source.items()}


def watch_in_order(tower: Tower, sites: Sequence[Site], context: Context, observer: type[Seen]) -> Mapping[str, Seen]:
    """The same for sites that are asked for in the order of the graph: a large tower is never run as a whole.

    What was asked for may be changed before the next is.
    """
    if tower.streamed or not large(tower):
        return watch(tower, sites, context, observer)
    return _walked(tower, sites, context, observer, None)


def _walked(
    tower: Tower, sites: Sequence[Site], context: Context, observer: type[Seen], scratch: Path | None
) -> Mapping[str, Seen]:
    """Segment by segment, with activations in a folder: that of the run, or one that goes with what is returned."""
    folder = scratch or Path(tempfile.mkdtemp())
    stream = stream_of(tower, folder, required(context), context.progress)
    walk = Walk(stream, tower, sites, observer, _windows(tower, sites))
    if scratch is None:
        weakref.finalize(walk, shutil.rmtree, folder, ignore_errors=True)
    return walk


def watch_values(
    tower: Tower, values: Sequence[str], context: Context, observer: type[Seen], windows: Windows | None = None
) -> dict[str, Seen]:
    """Run the calibration data; returns the observer of each float value of the graph, by its name.

    Values named in `windows` are shown as the patches that a convolution makes of them.
    """
    required(context)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        feeds = stored(tower, context, folder)
        save(tower.graph, folder / "graph.onnx", APART, [value for value in values if value not in tower.inputs])
        request = {
            "graph": str(folder / "graph.onnx"),
            "tower": tower.kind,
            "inputs": list(tower.inputs),
            "values": list(values),
            "windows": windows or {},
            "feeds": feeds,
            "observer": f"{observer.__module__}:{observer.__qualname__}",
            "out": made,
        }
        child.run("compress.steps.observer", request, Limits.of_machine(), context.progress, f"calibrate {tower.kind}")
        return {value: _read(observer, folder / f"{at}.npz") for at, value in enumerate(values)}


def required(context: Context) -> Callable[[str], Feeds]:
    """The calibration data. Raises UsageError where the recipe names none."""
    if context.feeds is None:
        raise UsageError(
            "this step needs calibration data", "data.calibration", "add data: {calibration: {source: ...}}"
        )
    return context.feeds


def _windows(tower: Tower, sites: Sequence[Site]) -> Windows:
    """For values that feed convolutions: kernel, strides and pads, by which they are cut into patches."""
    nodes = {node.name: node for node in tower.graph.graph.node}
    made: dict[str, dict[str, list[int]]] = {}
    for site in sites:
        if site.op == "Conv":
            windows = _window(site, nodes[site.node])
            value = nodes[site.node].input[0]
            if made.setdefault(value, windows) != windows:
                raise UsageError("another convolution cuts the same value in another way", site.name, _ALONE)
    return made


def _window(site: Site, node: onnx.NodeProto) -> dict[str, list[int]]:
    told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    groups, spread = told.get("group", 1), told.get("dilations", ())
    if groups != 1 or any(step != 1 for step in spread) or told.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UsageError(
            "inputs of convolutions in groups, with gaps or automatic pads are not watched", site.name, _ALONE
        )
    return {
        "kernel": list(site.shape[2:]),
        "strides": list(told.get("strides", (1, 1))),
        "pads": list(told.get("pads", (0, 0, 0, 0))),
    }


def stored(tower: Tower, context: Context, folder: Path) -> list[str]:
    """The batches of calibration inputs as files for the child."""
    assert context.feeds is not None
    paths = []
    for at, batch in enumerate(context.progress.track(context.feeds(tower.kind), f"prepare {tower.kind} inputs")):
        paths.append(str(folder / f"feed{at}.npz"))
        np.savez(paths[-1], **{name: batch[name] for name in tower.inputs})  # type: ignore[arg-type]
    if not paths:
        raise UsageError(f"there is no calibration data for the {tower.kind} tower", "data.calibration")
    return paths


def _read(observer: type[Seen], path: Path) -> Seen:
    with np.load(path, allow_pickle=False) as state:
        return observer.restored(dict(state))
