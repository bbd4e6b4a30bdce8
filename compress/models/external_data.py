"""Weights that an ONNX file keeps in other files: what may be read, checked before anything reads it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx

from compress.core.errors import IntegrityError
from compress.models.graph import messages

ABOVE: Final = 1_800_000_000
"""Bytes above which weights lie in a file of their own: protobuf cannot hold 2 GB."""

_KEYS: Final = {"location", "offset", "length", "checksum"}


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; the same model gives the same bytes. Large weights go to `<file>_data` beside it."""
    if model.ByteSize() < ABOVE:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    copied = onnx.ModelProto()
    copied.CopyFrom(model)  # onnx.save takes the weights out of the model it is given
    onnx.save(copied, str(path), save_as_external_data=True, location=f"{path.name}_data", size_threshold=1024)


def check(model: onnx.ModelProto, path: Path) -> None:
    """Raise IntegrityError unless all external data lie in regular files directly beside the model, and inside them.

    No folders, no links, no second names: what is read is what lies there. `model` is `path` read without its
    external data.
    """
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_tensor(tensor, path)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it stands."""
    return (each for each in messages(model) if isinstance(each, onnx.TensorProto))


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    where = f"{path}, weight {tensor.name[:80]!r}"
    told = {entry.key: entry.value for entry in tensor.external_data}
    if len(told) != len(tensor.external_data) or not told.keys() <= _KEYS or "location" not in told:
        raise IntegrityError("it is not said clearly where its data are", where)
    location = told["location"]
    if not location or Path(location).name != location or "\\" in location or "\0" in location:
        raise IntegrityError(f"its data are said to be in {location!r}, which is no file beside the model", where)
    size = _size(path.with_name(location), where)
    offset, length = _number(told.get("offset", "0"), where), _number(told.get("length", str(size)), where)
    if offset > size or ("length" in told and length > size - offset):
        raise IntegrityError(f"its data are said to end beyond the {size} bytes of {location!r}", where)


def _size(path: Path, where: str) -> int:
    try:
        found = path.lstat()
    except OSError as error:
        raise IntegrityError(f"its data in {path.name!r} cannot be read: {error.strerror}", where) from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise IntegrityError(f"its data are in {path.name!r}, which is not a regular file with one name", where)
    return found.st_size


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise IntegrityError(f"{text[:40]!r} is no place in a file", where)
    return int(text)
