"""Weights that an ONNX file keeps in other files: what may be read, checked before anything reads it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np
import onnx
from onnx import numpy_helper

from compress.core.errors import IntegrityError
from compress.models import reference
from compress.models.graph import array, messages

ABOVE: Final = 1_800_000_000
"""Bytes above which weights lie in a file of their own: protobuf cannot hold 2 GB."""

SMALL: Final = 1024
"""Bytes up to which a weight stays in the model file."""

_PAGE: Final = 4096
_KEYS: Final = {"location", "offset", "length", "checksum"}


def save(model: onnx.ModelProto, path: Path, above: int = ABOVE) -> None:
    """Write a model; the same model gives the same bytes. Weights of more than `above` go to `<file>_data` beside it.

    References are read one after the other, so what is written may be larger than memory.
    """
    referred = [tensor for tensor in model.graph.initializer if reference.is_reference(tensor)]
    size = model.ByteSize() + sum(reference.nbytes(tensor) for tensor in referred)
    if size < above and not referred:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if size < above:
        for tensor in made.graph.initializer:
            if reference.is_reference(tensor):
                tensor.CopyFrom(_held(tensor))
    else:
        with path.with_name(f"{path.name}_data").open("wb") as data:
            for tensor in made.graph.initializer:
                if reference.nbytes(tensor) >= SMALL:
                    _put_out(tensor, data)
    path.write_bytes(made.SerializeToString(deterministic=True))


def _held(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array(tensor)), tensor.name)


def _put_out(tensor: onnx.TensorProto, data: IO[bytes]) -> None:
    """Write a weight at the next page of a file, and leave in the tensor where that is."""
    if reference.is_reference(tensor) or not tensor.raw_data:
        values = np.ascontiguousarray(array(tensor))
        made = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(made)
        content = values.data.cast("B") if values.size else b""
    else:
        content = tensor.raw_data
        tensor.ClearField("raw_data")
    data.write(b"\0" * (-data.tell() % _PAGE))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    told = {"location": Path(data.name).name, "offset": str(data.tell()), "length": str(len(content))}
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    data.write(content)


def referring(path: Path) -> onnx.ModelProto:
    """A model with references to the weights that lie beside it, in place of the weights. They are checked first."""
    model = onnx.load(path, load_external_data=False)
    check(model, path)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(path.resolve().with_name(entry.value))
    return model


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
