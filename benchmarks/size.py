"""Bytes of a ViT-B/32-shaped CLIP in 4 bits with everything counted: towers, token table, patch embedding, graphs.

    python benchmarks/size.py                  # minutes, and 3 GB of memory
    python benchmarks/size.py --tiny           # a few seconds
    python benchmarks/size.py --parity         # runs the files as well

Weights are random: they make no difference to bytes. With --parity each row also says how far the written files are
from what the rounded weights mean: the lowest cosine between what ONNX Runtime makes of the file and of the float graph
with those weights put in.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper
from speed import SHAPES, fresh, noise, shaped

from compress.models.graph import initializers
from compress.models.tower import Encoder, Tower
from compress.models.treatment import BlockWeights
from compress.pipeline.measurement import model_bytes
from compress.steps.quantize import int4_rtn, int8_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.session import open_session, run

EVERYTHING = ("patch_embed", *int4_rtn.DEFAULT)
ROWS: Mapping[str, tuple[tuple[Any, Mapping[str, Any]], ...]] = {
    "everything int4, block 64": ((int4_rtn, {"block": 64, "include": (*EVERYTHING, "embedding")}),),
    "products alone, block 32": ((int4_rtn, {"block": 32}),),
    "everything int4, block 32": ((int4_rtn, {"block": 32, "include": (*EVERYTHING, "embedding")}),),
    "table int8, the rest int4, block 64": (
        (int4_rtn, {"block": 64, "include": EVERYTHING}), (int8_rtn, {"block": 64, "include": ("embedding",)}),
    ),
    "everything int4, block 128": ((int4_rtn, {"block": 128, "include": (*EVERYTHING, "embedding")}),),
}  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few small layers, to see that it runs")
    parser.add_argument("--parity", action="store_true", help="run every file, and the float graph it stands for")
    given = parser.parse_args()
    encoder = shaped(SHAPES["ViT-B/32"], given.tiny)
    with tempfile.TemporaryDirectory() as made:
        reference = Path(made) / "float"
        reference.mkdir()
        onnxruntime_cpu.export(encoder, reference)
        before = sum(model_bytes(reference).values())
        print(f"| ViT-B/32 | bytes | float / it | lowest cosine |\n|---|--:|--:|--:|\n| float | {before:,} | 1.00 | |")
        for name, steps in ROWS.items():
            treated, folder = fresh(encoder), Path(made) / "candidate"
            for method, options in steps:
                method.apply(treated, method.Spec(scale_search="absmax", **options), Context())
            folder.mkdir()
            files = onnxruntime_cpu.export(treated, folder)
            after = sum(model_bytes(folder).values())
            near = f"{parity(treated, files):.6f}" if given.parity or given.tiny else ""
            print(f"| {name} | {after:,} | {before / after:.2f} | {near} |", flush=True)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            folder.rmdir()


def parity(encoder: Encoder, files: Mapping[str, Path]) -> float:
    """The lowest cosine of any item of both towers."""
    lowest = 1.0
    for kind, path in files.items():
        tower = encoder.towers[kind]
        (feed,) = noise(encoder, kind)
        meant, made = (
            run(open_session(each), [tower.output], {name: feed[name] for name in tower.inputs})[0]
            for each in (with_weights(tower), path)
        )
        lengths = np.linalg.norm(meant, axis=1) * np.linalg.norm(made, axis=1)
        lowest = min(lowest, float(((meant * made).sum(1) / lengths).min()))
    return lowest


def with_weights(tower: Tower) -> ModelProto:
    """The float graph with the rounded weights in place of its own."""
    model = ModelProto()
    model.CopyFrom(tower.graph)
    weights = initializers(model)
    for site in tower.sites:
        held = tower.treatments.get(site.name)
        if isinstance(held, BlockWeights):
            values = held.dequantized()
            values = values.T if site.op == "MatMul" else values.reshape(site.shape)
            weights[site.weight].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), site.weight))
    return model


if __name__ == "__main__":
    main()
