"""The weights of a model folder as safetensors: where each lies, from the headers alone, and a digest of all."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.core import digest
from compress.core.errors import IntegrityError, UsageError
from compress.core.progress import Progress, Silent
from compress.models.reference import Reference
from compress.models.source import WEIGHTS

_TYPES: Final = {
    "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "F64": ("float64", 8),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}  # fmt: skip
_LARGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Shards:
    """The safetensors files of a folder and where each weight lies in them, by its name."""

    files: tuple[Path, ...]
    weights: Mapping[str, Reference]

    @property
    def parameters(self) -> int:
        """Number of floating point weights."""
        floats = (each for each in self.weights.values() if "float" in each.stored)
        return sum(math.prod(each.shape) for each in floats)

    @property
    def stored(self) -> int:
        """Bytes of the files."""
        return sum(path.stat().st_size for path in self.files)

    def digest(self, progress: Progress | None = None) -> str:
        """SHA-256 over the digests of the files: every byte is read, none is kept."""
        files = (progress or Silent()).track(self.files, "digest of the weights", len(self.files))
        return digest.of_data([[path.name, digest.of_file(path)] for path in files])


def open_shards(folder: Path) -> Shards:
    """Read the headers of a folder's safetensors.

    Raises UsageError where there are none, IntegrityError for a file that is not whole or no safetensors, or that
    lacks a weight the index promises.
    """
    whole, index = (folder / name for name in WEIGHTS)
    if whole.is_file():
        return Shards((whole,), header(whole))
    if not index.is_file():
        raise UsageError(f"no weights that can be streamed; looked for {', '.join(WEIGHTS)}", str(folder))
    try:
        promised: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted(set(promised.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the index of the weights cannot be read: {error!r}", str(index)) from error
    held = {name: header(_shard(folder, name)) for name in names}
    for weight, file in promised.items():
        if weight not in held[file]:
            raise IntegrityError(f"lacks {weight!r}, which the index promises", str(folder / file), "copy it again")
    return Shards(
        tuple(folder / name for name in names), {weight: held[promised[weight]][weight] for weight in promised}
    )


def _shard(folder: Path, name: str) -> Path:
    """A shard's file, which lies in the folder itself."""
    if Path(name).name != name or not (folder / name).is_file():
        raise UsageError(f"the weights in {name!r} are missing", str(folder), "copy every file of the model")
    return folder / name


def header(path: Path) -> dict[str, Reference]:
    """Where the tensors of a safetensors file lie. Raises IntegrityError where the file does not hold what it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(_LARGEST_HEADER, size - 8):
                raise ValueError(f"its header says that it is {length} bytes long")
            told = json.loads(opened.read(length))
        told.pop("__metadata__", None)
        found = {name: _reference(path, 8 + length, each) for name, each in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise IntegrityError(f"is no safetensors file: {error}", str(path), "copy the file again") from error
    end = max((each.offset + each.length for each in found.values()), default=0)
    if end > size:
        hint = "copy the file again"
        raise IntegrityError(f"is cut off: its weights end at byte {end:,}, the file at {size:,}", str(path), hint)
    return found


def _reference(path: Path, start: int, told: Any) -> Reference:
    kind, size = _TYPES[told["dtype"]]
    shape = tuple(int(each) for each in told["shape"])
    begin, end = told["data_offsets"]
    if min((begin, *shape), default=0) < 0 or end - begin != math.prod(shape) * size:
        raise ValueError(f"{shape} of {told['dtype']} are not {end - begin} bytes")
    return Reference(path, start + begin, kind, shape)
