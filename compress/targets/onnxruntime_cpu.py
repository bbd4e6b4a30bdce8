"""`onnxruntime-cpu`: int8 static products, 4- and 8-bit weights in blocks, fp16 weights, everything else in float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from compress.models.tower import Encoder, Tower
from compress.models.treatment import StaticInt8
from compress.targets import Counts
from compress.targets.graph import census, folder, kernels
from compress.targets.graph.activation import fold_factors
from compress.targets.graph.attention import fuse_attention
from compress.targets.graph.emitter import emit
from compress.targets.graph.ending import cut_after_end
from compress.targets.graph.folder import Opened, files_of, suffix
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.masking import lift_masked
from compress.targets.graph.padding import read_padding_whole
from compress.targets.graph.pooling import pool_early

__all__ = ["NAME", "counts", "export", "files_of", "ready", "suffix"]

NAME: Final = "onnxruntime-cpu"


def ready() -> None:
    """Its artifacts are measured on the CPU, wherever that is."""


def export(encoder: Encoder, place: Path) -> dict[str, Path]:
    """Write the encoder as it stands, treated or float, as an artifact is laid out; returns the file of each tower."""
    return folder.write(encoder, place, fused, Opened(NAME))


def fused(tower: Tower) -> onnx.ModelProto:
    """The graph of a tower as this target writes it: whole products, whole attentions, and masks that are cheap."""
    made = emit(tower)
    read_padding_whole(made)
    fuse_products(made)
    fold_factors(made)
    fuse_attention(made)
    lift_masked(made)
    pool_early(made, tower.tokens)
    cut_after_end(made)
    return made


def counts(encoder: Encoder, files: Mapping[str, Path]) -> dict[str, Counts]:
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
