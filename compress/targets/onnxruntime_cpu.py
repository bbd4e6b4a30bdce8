"""`onnxruntime-cpu`: int8 static products, 4- and 8-bit weights in blocks, everything else in float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from compress.data import runtime
from compress.models.external_data import save
from compress.models.tower import Encoder, Tower
from compress.models.treatment import BlockWeights, StaticInt8
from compress.targets.graph import census, kernels
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products

NAME: Final = "onnxruntime-cpu"


def export(encoder: Encoder, folder: Path) -> dict[str, Path]:
    """Write the encoder as it stands, treated or float, as an artifact is laid out; returns the file of each tower."""
    files = files_of(encoder, folder)
    for kind, path in files.items():
        _write(encoder.towers[kind], path)
    for name, data in encoder.files.items():
        (folder / name).write_bytes(data)
    runtime.write(folder, _runtime(encoder, {kind: path.relative_to(folder) for kind, path in files.items()}))
    return files


def files_of(encoder: Encoder, folder: Path) -> dict[str, Path]:
    """Where the file of each tower is, or will be, in the folder of an artifact."""
    return {kind: folder / "onnx" / f"{kind}_model{suffix(tower)}.onnx" for kind, tower in encoder.towers.items()}


def _write(tower: Tower, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = emit(tower)
    fuse_products(graph)
    save(graph, path)


def suffix(tower: Tower) -> str:
    """What readers of the Hugging Face layout expect behind the tower's name: nothing, _int8, _q8 or _q4."""
    held = tower.treatments.values()
    if any(isinstance(each, BlockWeights) and each.bits == 4 for each in held):
        return "_q4"
    if any(isinstance(each, StaticInt8) for each in held):
        return "_int8"
    return "_q8" if held else ""


def _runtime(encoder: Encoder, files: Mapping[str, Path]) -> runtime.Runtime:
    towers: dict[str, Any] = {}
    for kind, tower in encoder.towers.items():
        entry = {"file": files[kind].as_posix(), "input": tower.inputs[0], "output": tower.output}
        towers[kind] = {**entry, "mask": tower.inputs[1]} if len(tower.inputs) > 1 else entry
    return runtime.Runtime.model_validate(
        {
            "target": NAME,
            "towers": towers,
            "preprocess": _tuples(encoder.preprocess),
            "logit_scale": encoder.logit_scale or 1.0,
            "normalized": encoder.normalized,
        }
    )


def _tuples(value: Any) -> Any:
    """Lists as tuples: the strict model takes no list for a tuple."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def counts(encoder: Encoder, files: Mapping[str, Path]) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """By tower: what was planned and what the written file holds, its kernels after runtime optimisation included."""
    made = {}
    for kind, path in files.items():
        tower = encoder.towers[kind]
        planned = census.planned(tower)
        found = census.found(onnx.load(path), tower)
        integers = sum(isinstance(each, StaticInt8) for each in tower.treatments.values())
        if integers:
            planned["integer kernels"] = str(integers)
            found["integer kernels"] = str(kernels.chosen(path).get("MatMulIntegerToFloat", 0))
        made[kind] = (planned, found)
    return made
