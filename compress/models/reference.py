"""Weights that are not in memory: tensors of a graph that say in which file their numbers lie, read when asked for.

A reference is an external tensor of ONNX whose `location` is an absolute path. It lives in memory only: whatever is
written to a file holds the numbers (`external_data.save`), and a graph read from a file holds none (`external_data`
is checked and read at once). Copying, cutting and searching a graph of references costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compress.core.errors import IntegrityError

_STORED: Final[dict[str, np.dtype[Any]]] = {
    "float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
"""Types in which floats may be stored; all of them are read as float32."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the numbers of a tensor lie: `shape` as stored, in `path` from `offset` on, in numpy's type `stored`."""

    path: Path
    offset: int
    stored: str
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Bytes as stored."""
        return math.prod(self.shape) * int(_type(self.stored).itemsize)


def tensor(name: str, reference: Reference, widened: bool = True) -> onnx.TensorProto:
    """A tensor that refers to stored numbers; floats of any type are float32 to whoever reads it, if `widened`."""
    wide = widened and reference.stored in _STORED
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32 if wide else _type(reference.stored)))
    made = onnx.TensorProto(name=name, data_type=kind, dims=reference.shape)
    made.data_location = onnx.TensorProto.EXTERNAL
    told = {
        "location": str(reference.path.resolve()), "offset": str(reference.offset), "length": str(reference.length),
        "stored": reference.stored,
    }  # fmt: skip
    for key, value in told.items():
        made.external_data.add(key=key, value=value)
    return made


def turned(given: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """A reference to the transpose of what a reference of two dimensions refers to."""
    made = onnx.TensorProto()
    made.CopyFrom(given)
    made.name = name
    made.dims[:] = reversed(given.dims)
    if any(entry.key == "turned" for entry in made.external_data):
        kept = [entry for entry in given.external_data if entry.key != "turned"]
        del made.external_data[:]
        made.external_data.extend(kept)
    else:
        made.external_data.add(key="turned", value="1")
    return made


def is_reference(given: onnx.TensorProto) -> bool:
    """Whether a tensor's numbers lie in a file."""
    return bool(given.data_location == onnx.TensorProto.EXTERNAL)


def nbytes(given: onnx.TensorProto) -> int:
    """Bytes of a tensor's numbers once they are read; those of one that holds them, as it holds them."""
    if not is_reference(given):
        return len(given.raw_data) or int(given.ByteSize())
    made: int = helper.tensor_dtype_to_np_dtype(given.data_type).itemsize * math.prod(given.dims)
    return made


def read(given: onnx.TensorProto) -> NDArray[np.generic]:
    """The numbers that a reference refers to, read from the file and not mapped: what is dropped is gone at once.

    Raises IntegrityError where the file is gone or shorter than it was.
    """
    told = {entry.key: entry.value for entry in given.external_data}
    path, turn = Path(told["location"]), "turned" in told
    shape = tuple(reversed(given.dims)) if turn else tuple(given.dims)
    stored = _type(told["stored"]) if "stored" in told else helper.tensor_dtype_to_np_dtype(given.data_type)
    try:
        values: NDArray[np.generic] = np.fromfile(path, stored, math.prod(shape), offset=int(told["offset"]))
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror or error}", str(path), "was it moved?") from error
    if values.size != math.prod(shape):
        raise IntegrityError(f"ends before the numbers of {given.name!r} do", str(path), "copy the file again")
    values = values.reshape(shape).astype(helper.tensor_dtype_to_np_dtype(given.data_type), copy=False)
    return values.T if turn else values


def _type(stored: str) -> np.dtype[Any]:
    return _STORED[stored] if stored in _STORED else np.dtype(stored)
