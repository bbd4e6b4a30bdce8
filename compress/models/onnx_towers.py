"""An encoder from float ONNX towers that already exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from compress.core.errors import CompressError, ResourceExhausted, UsageError
from compress.data.child import out_of_memory
from compress.models import external_data
from compress.models.graph import array, check_opset, clean, parameter_count, strip_nodes
from compress.models.sites import by_topology, tokens_by_topology
from compress.models.tower import Encoder, Tower


def load_onnx(
    files: Mapping[str, Path], preprocess: Mapping[str, Any], logit_scale: float | None = None, normalized: bool = True
) -> Encoder:
    """Load ONNX towers by kind ("vision", "text"). External data are read from beside each file and nowhere else.

    Raises UsageError for what is no valid tower, IntegrityError for external data that lie anywhere else.
    """
    towers = {kind: _tower(kind, path) for kind, path in files.items()}
    return Encoder(
        source="onnx",
        revision=None,
        architecture="onnx",
        parameters=sum(parameter_count(tower.graph) for tower in towers.values()),
        towers=towers,
        files={},
        preprocess=preprocess,
        logit_scale=logit_scale,
        normalized=normalized,
    )


def _tower(kind: str, path: Path) -> Tower:
    if not path.is_file():
        hint = "--data-root names the folder that model and data paths start from"
        raise UsageError(f"no such {kind} tower", str(path), hint)
    try:
        return _described(kind, _read(path), path)
    except CompressError:
        raise
    except Exception as error:  # protobuf, onnx and numpy raise a dozen unrelated classes for files that are broken
        if out_of_memory(error):
            raise ResourceExhausted(f"memory ran out while reading the model: {error}", str(path)) from error
        raise UsageError(f"not a valid ONNX model: {error}", str(path)) from error


def _read(path: Path) -> onnx.ModelProto:
    """A valid model with its external data, which are looked at before anything follows them."""
    model = onnx.load(path, load_external_data=False)
    external_data.check(model, path)
    onnx.checker.check_model(path)  # by path: as bytes it takes no model above 2 GB
    onnx.load_external_data_for_model(model, str(path.parent))
    for tensor in external_data.tensors(model):
        tensor.ClearField("data_location")  # from here on nothing is read from anywhere, and the bytes are the same
        array(tensor)  # raises where a weight has not the bytes that its shape says
    return model


def _described(kind: str, loaded: onnx.ModelProto, path: Path) -> Tower:
    check_opset(loaded, str(path))
    graph = clean(loaded)
    strip_nodes(graph)
    if len(graph.graph.output) != 1:
        raise UsageError(f"a tower has one output, the embeddings; this one has {len(graph.graph.output)}", str(path))
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = tuple(value.name for value in graph.graph.input if value.name not in weights)
    sites = by_topology(graph)
    tokens = tokens_by_topology(graph, sites) if kind == "vision" else None
    return Tower(kind, graph, sites, inputs, graph.graph.output[0].name, tokens=tokens)
