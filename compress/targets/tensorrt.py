"""`tensorrt`: strongly typed files of the standard domain, with profile shapes, linted on the way out.

Precision stands in the file, because TensorRT 11 takes no precision flags. Engines are not shipped: they fit one GPU
and one version. Where there is no TensorRT, ONNX Runtime computes on the CPU what the Q/DQ say, literally (no fused
integer kernels), and the gates judge that: it proves the numbers of the file, not an engine. Hence `linted-only`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.data.runtime import Session
from compress.models.tower import Encoder
from compress.targets import Counts
from compress.targets.graph import folder, profile, standard, standard_census
from compress.targets.graph.folder import Opened, files_of
from compress.targets.lint.check import lint

__all__ = ["NAME", "counts", "export", "files_of", "ready"]

NAME: Final = "tensorrt"


def ready() -> None:
    """Its artifacts are measured on the CPU, wherever that is."""


def export(encoder: Encoder, place: Path) -> dict[str, Path]:
    """Write the towers and their profile shapes; raises UsageError where the files break a rule of this target."""
    opened = Opened(NAME, Session(graph_optimization_level="basic"), "linted-only")
    files = folder.write(encoder, place, standard.emit, opened)
    profile.write(encoder, place)
    shapes = profile.read(place / layout.PROFILE_SHAPES)
    told = lint(NAME, {path: shapes[kind] for kind, path in files.items()})
    broken = [f"{path.name}: {finding}" for path, found in told.items() for finding in found]
    if broken:
        more = f" (and {len(broken) - 5} more)" if len(broken) > 5 else ""
        raise UsageError(
            f"the exported files break rules of {NAME}{more}:\n  " + "\n  ".join(broken[:5]),
            hint="`compress lint` tells all of them; what stands in the model's own graph has to be exported anew",
        )
    return files


def counts(encoder: Encoder, files: Mapping[str, Path]) -> dict[str, Counts]:
    """By tower: what was planned and what the written file holds."""
    made = {}
    for kind, path in files.items():
        tower = encoder.towers[kind]
        made[kind] = standard_census.planned(tower), standard_census.found(onnx.load(path), tower)
    return made
