"""Weights of a graph under construction that are put into a file at once, so that no two of them are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.core import digest
from compress.models import reference
from compress.models.reference import Reference

HELD: Final = 1024
"""Bytes up to which a weight is held."""


class Spool:
    """A file that grows by every weight added to it; made empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], onnx.TensorProto] = {}
        path.write_bytes(b"")

    def add(self, name: str, values: NDArray[np.generic]) -> onnx.TensorProto:
        """A tensor of this name that refers to the values in the file; the same one for the same values."""
        values = np.ascontiguousarray(values)
        if values.nbytes <= HELD:
            held: onnx.TensorProto = numpy_helper.from_array(values, name)
            return held
        content = values.data.cast("B")
        key = name, digest.of_bytes(content)  # type: ignore[arg-type]
        if key not in self._known:
            with self._path.open("ab") as opened:
                place = Reference(self._path, opened.tell(), values.dtype.name, values.shape)
                opened.write(content)
            self._known[key] = reference.tensor(name, place, widened=False)
        return self._known[key]
