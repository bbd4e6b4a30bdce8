"""`onnxruntime-cuda`: half precision, 4-bit weights in blocks, int8 Q/DQ, on the CUDA provider or not at all.

Whether it ran there is proved twice: the session's providers are compared with those asked for, and the census counts
on which provider every product was placed while the file ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from compress.core.errors import UsageError
from compress.data.runtime import Session
from compress.models.tower import Encoder
from compress.models.treatment import BlockWeights
from compress.targets import Counts
from compress.targets.graph import census, emitter, folder, placement, standard
from compress.targets.graph.folder import Opened, files_of
from compress.targets.graph.session import require

__all__ = ["NAME", "counts", "export", "files_of", "ready"]

NAME: Final = "onnxruntime-cuda"
PROVIDER: Final = "CUDAExecutionProvider"


def ready() -> None:
    """Raise EnvironmentFailure where ONNX Runtime has no CUDA provider."""
    require([PROVIDER], "install onnxruntime-gpu (the extra [cuda]) on a machine with a CUDA device")


def export(encoder: Encoder, place: Path) -> dict[str, Path]:
    """Write the encoder as it stands, treated or float, as an artifact is laid out; returns the file of each tower.

    Raises UsageError for products that shall round their inputs as they run: the CUDA kernel computes them in float.
    """
    for tower in encoder.towers.values():
        for name, held in tower.treatments.items():
            if isinstance(held, BlockWeights) and held.compute == "int8":
                raise UsageError(f"{NAME} computes inputs in float", name, "leave out compute: int8")
    return folder.write(encoder, place, emit, Opened(NAME, Session(providers=(PROVIDER,))))


emit = standard.in_half(emitter.emit)


def counts(encoder: Encoder, files: Mapping[str, Path]) -> dict[str, Counts]:
    """By tower: what was planned and what the written file holds, and where its products ran."""
    made = {}
    for kind, path in files.items():
        tower = encoder.towers[kind]
        planned, found = census.planned(tower), census.found(onnx.load(path), tower)
        placed = placement.of_products(path, [PROVIDER])
        planned[f"products on {PROVIDER}"] = str(sum(placed.values()))
        found[f"products on {PROVIDER}"] = str(placed.get(PROVIDER, 0))
        made[kind] = planned, found
    return made
