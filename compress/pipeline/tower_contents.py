"""What the tower files of an artifact contain, without a plan to hold them against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from compress.artifact import manifest
from compress.core.errors import IntegrityError
from compress.data import runtime
from compress.models import shards
from compress.targets.graph import contents

PLACES: Final = {".onnx": "onnx/", ".safetensors": "torch/"}
"""By a file's ending, which decides what runs it, the folder in which its bytes are counted."""

Told = dict[str, dict[str, Any]]


def read(folder: Path, kinds: tuple[str, ...]) -> Told:
    """By tower: its file, the digest of that, and what is in it, as JSON-like data.

    Of ONNX files a child tells, which opens them; of safetensors the header does, which is JSON. Raises IntegrityError
    for a tower that is no file of the folder, or lies where its size would not be counted.
    """
    digests = {entry.path: entry.sha256 for entry in manifest.scan(folder, "candidate").entries}
    towers = runtime.read(folder).towers
    files = {kind: getattr(towers, kind).file for kind in kinds if getattr(towers, kind) is not None}
    for file in files.values():
        place = PLACES.get(Path(file).suffix)
        if file not in digests or place is None or not file.startswith(place):
            raise IntegrityError(
                "is said to be a tower, and is no .onnx below onnx/ or .safetensors below torch/", file
            )
    graphs = {kind: folder / file for kind, file in files.items() if file.endswith(".onnx")}
    held: Told = {kind: each.data() for kind, each in contents.read(graphs).items()} if graphs else {}
    held |= {kind: _tensors(folder / file) for kind, file in files.items() if kind not in graphs}
    return {kind: {"from": file, "sha256": digests[file], **held[kind]} for kind, file in files.items()}


def _tensors(file: Path) -> dict[str, Any]:
    """Bytes of the weights by element type; which kernels run them is torch's to choose."""
    sums: Counter[str] = Counter()
    try:
        found: Mapping[str, Any] = shards.header(file)
    except RecursionError:
        raise IntegrityError("is no safetensors file: its header is nested too deeply", str(file)) from None
    for each in found.values():
        sums[each.stored] += each.length
    return {"weights": dict(sums), "parts": {}}
