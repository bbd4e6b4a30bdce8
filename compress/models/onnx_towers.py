"""An encoder from float ONNX towers that already exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from compress.core.errors import UsageError
from compress.models.graph import check_opset, clean, parameter_count, strip_nodes
from compress.models.sites import by_topology
from compress.models.tower import Encoder, Tower


def load_onnx(
    files: Mapping[str, Path], preprocess: Mapping[str, Any], logit_scale: float | None = None, normalized: bool = True
) -> Encoder:
    """Load ONNX towers by kind ("vision", "text"). External data are read from beside each file and nowhere else."""
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
        raise UsageError(f"no such {kind} tower", str(path))
    try:
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded)
    except Exception as error:
        raise UsageError(f"not a valid ONNX model: {error}", str(path)) from error
    check_opset(loaded, str(path))
    graph = clean(loaded)
    strip_nodes(graph)
    if len(graph.graph.output) != 1:
        raise UsageError(f"a tower has one output, the embeddings; this one has {len(graph.graph.output)}", str(path))
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = tuple(value.name for value in graph.graph.input if value.name not in weights)
    return Tower(kind, graph, by_topology(graph), inputs, graph.graph.output[0].name)
