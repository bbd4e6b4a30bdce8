"""Embeddings of calibration data by variants of one tower, made in a child process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Limits
from compress.models.graph import initializers
from compress.models.tower import Tower
from compress.models.treatment import BnbWeights, StaticFloat8, Treatment
from compress.steps._activations import stored
from compress.steps.step import Context
from compress.targets.graph import standard
from compress.targets.graph.emitter import emit

WORKER: Final = "compress.steps.embedder"
SHARED: Final = 1024
"""Bytes of a weight from which all variants read it from one file."""

Embeddings = NDArray[np.float32]


def embeddings(tower: Tower, variants: Sequence[Mapping[str, Treatment]], context: Context) -> list[Embeddings]:
    """What a tower makes of the calibration data, (items, width), under each set of treatments.

    Float weights that variants share are written once, so that many of them cost little more disk than one.
    Raises UsageError where there are no calibration data.
    """
    if context.feeds is None:
        raise UsageError(
            "this needs calibration data", "data.calibration", "add data: {calibration: {source: scenes, samples: 256}}"
        )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        places = _shared(tower.graph, folder / "shared.bin")
        paths = [folder / f"variant{at}.onnx" for at in range(len(variants))]
        for path, treatments in zip(paths, variants, strict=True):
            path.write_bytes(_thin(computable(replace(tower, treatments=dict(treatments))), places))
        request = {
            "graphs": [str(path) for path in paths],
            "feeds": stored(tower, context, folder),
            "inputs": list(tower.inputs),
            "output": tower.output,
            "out": made,
        }
        child.run(WORKER, request, Limits.of_machine(), context.progress, f"embed with {tower.kind}")
        return [np.load(folder / f"{at}.npy", allow_pickle=False) for at in range(len(variants))]


def computable(tower: Tower) -> onnx.ModelProto:
    """The treated tower in operators that ONNX Runtime computes on any CPU.

    Weights of bitsandbytes are put in as floats; that its int8 rounds inputs as well is not simulated.
    """
    tower = _without_bnb(tower)
    held = tower.treatments.values()
    return standard.emit(tower) if any(isinstance(each, StaticFloat8) for each in held) else emit(tower)


def _without_bnb(tower: Tower) -> Tower:
    """The tower with the weights that those of bitsandbytes stand for, and no other difference."""
    restored = {name: held for name, held in tower.treatments.items() if isinstance(held, BnbWeights)}
    if not restored:
        return tower
    graph = onnx.ModelProto()
    graph.CopyFrom(tower.graph)
    weights = initializers(graph)
    for name, held in restored.items():
        weight = tower.site(name).weight
        weights[weight].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(held.dequantized().T), f"{weight}_bnb"))
        for node in graph.graph.node:
            for at, read in enumerate(node.input):
                if read == weight:
                    node.input[at] = f"{weight}_bnb"
    left = {name: held for name, held in tower.treatments.items() if name not in restored}
    return replace(tower, graph=graph, treatments=left)


def _shared(graph: onnx.ModelProto, path: Path) -> dict[str, tuple[int, int]]:
    """Write the large weights of a graph one after another; returns offset and length of each."""
    places: dict[str, tuple[int, int]] = {}
    with path.open("wb") as file:
        for tensor in graph.graph.initializer:
            if len(tensor.raw_data) >= SHARED:
                places[tensor.name] = file.tell(), len(tensor.raw_data)
                file.write(tensor.raw_data)
    return places


def _thin(model: onnx.ModelProto, places: Mapping[str, tuple[int, int]]) -> bytes:
    """A graph whose shared weights lie in `shared.bin` beside it; one that was replaced has another name."""
    for tensor in model.graph.initializer:
        if tensor.name not in places or len(tensor.raw_data) != places[tensor.name][1]:
            continue
        offset, length = places[tensor.name]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "shared.bin"), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content
