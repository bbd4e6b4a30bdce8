"""The proof matrix: for each tower and each runtime that might open it, whether that was seen to work here.

A cell is proved by running the file there, or it says why it was not. Nothing is concluded from one runtime to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import onnxruntime

from compress.core.errors import CompressError
from compress.core.progress import Progress
from compress.data import child, runtime
from compress.data.child import Limits
from compress.data.runtime import TowerFile
from compress.data.session import TORCH

WORKER: Final = "compress.bench.prove"

PLACES: Final = (
    ("onnxruntime", "CPUExecutionProvider"),
    ("onnxruntime", "CUDAExecutionProvider"),
    ("onnxruntime", "TensorrtExecutionProvider"),
    ("openvino", "CPU"),
)
"""Every runtime and provider that has a column."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One file on one provider; None where that was not measured, and then `note` says why.

    `parity` is the lowest cosine between what it makes of 8 items and what the file says when ONNX Runtime computes
    every node as it is written (so Q/DQ are simulated in float); `latency_ms` the median of seven calls with one item.
    """

    file: str
    tower: str
    runtime: str
    provider: str
    loaded: bool | None = None
    ran: bool | None = None
    parity: float | None = None
    latency_ms: float | None = None
    note: str = ""

    def data(self) -> dict[str, Any]:
        """As JSON-like data."""
        return asdict(self)


def matrix(folder: Path, gated: Mapping[str, float | None], progress: Progress) -> tuple[Cell, ...]:
    """Every cell of an artifact whose gates have just run it on the provider that its runtime file names.

    `gated` are the milliseconds that the gates measured for one item by tower, None where they measured none.
    """
    opened = runtime.read(folder)
    towers = {kind: file for kind in ("vision", "text") if (file := getattr(opened.towers, kind)) is not None}
    if all(file.file.endswith(TORCH) for file in towers.values()):
        seen = ((file.file, kind, "torch", "cpu", True, True, None, gated.get(kind)) for kind, file in towers.items())
        return tuple(Cell(*each, note="run by the gates") for each in seen)
    cells: list[Cell] = []
    for name, provider in PLACES:
        reason = _absent(name, provider)
        if provider == opened.session.providers[0]:
            seen = (
                (file.file, kind, name, provider, True, True, None, gated.get(kind)) for kind, file in towers.items()
            )
            cells += (Cell(*each, note="run by the gates") for each in seen)
        elif reason:
            cells += (Cell(file.file, kind, name, provider, note=reason) for kind, file in towers.items())
        else:
            cells += _probed(folder, towers, (name, provider), progress)
    return tuple(cells)


def proved(cells: Sequence[Cell], provider: str) -> bool:
    """Whether every tower ran on a provider."""
    there = [each for each in cells if each.provider == provider]
    return bool(there) and all(each.ran for each in there)


def _absent(name: str, provider: str) -> str:
    """Why a cell cannot be measured on this machine, or an empty string."""
    if name == "onnxruntime":
        offered = onnxruntime.get_available_providers()
        return "" if provider in offered else f"onnxruntime {onnxruntime.__version__} has no {provider} here"
    return "" if find_spec(name) else f"{name} is not installed"


def _probed(folder: Path, towers: dict[str, TowerFile], place: tuple[str, str], progress: Progress) -> Iterator[Cell]:
    """The cells of one provider, each tower opened in a child of its own: a crash is an answer."""
    name, provider = place
    for kind, file in towers.items():
        request = {"folder": str(folder.resolve()), "tower": kind, "runtime": name, "provider": provider}
        try:
            told = child.run(WORKER, request, Limits(600.0), progress, f"{kind} tower on {name} {provider}")
        except CompressError as error:
            told = {"loaded": False, "ran": False, "note": str(error).strip().splitlines()[-1][:300]}
        yield Cell(file.file, kind, name, provider, **told)
