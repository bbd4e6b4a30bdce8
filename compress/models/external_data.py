"""Weights that an ONNX file keeps in other files: what may be read, checked before anything reads it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from compress.core.errors import IntegrityError
from compress.models import reference
from compress.models.graph import array, messages

ABOVE: Final = 1_800_000_000
"""Bytes above which weights lie in a file of their own: protobuf cannot hold 2 GB."""

APART: Final = 1 << 20
"""The same for files that a child reads soon: weights that are written one by one need no second copy of them here."""

SMALL: Final = 1024
"""Bytes up to which a weight stays in the model file."""

_PAGE: Final = 4096
_KEYS: Final = {"location", "offset", "length", "checksum"}


def save(model: onnx.ModelProto, path: Path, above: int = ABOVE, outputs: Sequence[str] = ()) -> None:
    """Write a model; the same model gives the same bytes. Weights of more than `above` go to `<file>_data` beside it.

    Weights that go to a file of their own are written, and references read, one after the other: no second copy of the
    model is held, and what is written may be larger than memory. `outputs` are float values of the graph that the file
    returns as well.
    """
    made = _without_weights(model)
    size = made.ByteSize() + sum(map(reference.nbytes, model.graph.initializer))  # that of a model takes a copy of it
    if size < above and not outputs and not any(map(reference.is_reference, model.graph.initializer)):
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    have = {value.name for value in made.graph.output}
    new = [name for name in dict.fromkeys(outputs) if name not in have]
    made.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in new)
    if size < above:
        made.graph.initializer.extend(map(_held, model.graph.initializer))
    else:
        with path.with_name(f"{path.name}_data").open("wb") as data:
            for tensor in model.graph.initializer:
                large = reference.nbytes(tensor) >= SMALL
                made.graph.initializer.append(_put_out(tensor, data) if large else tensor)
    path.write_bytes(made.SerializeToString(deterministic=True))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    for described, value in model.ListFields():
        if described.name != "graph":
            _set(made, described.name, value)
    for described, value in model.graph.ListFields():
        if described.name != "initializer":
            _set(made.graph, described.name, value)
    return made


def _set(message: Message, name: str, value: Any) -> None:
    """Give a field a copy of another message's value, whether it is a number, a message or many."""
    field = getattr(message, name)
    if isinstance(field, Message):
        field.CopyFrom(value)
    elif hasattr(field, "extend"):
        field.extend(value)
    else:
        setattr(message, name, value)


def _held(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if not reference.is_reference(tensor):
        return tensor
    return numpy_helper.from_array(np.ascontiguousarray(array(tensor)), tensor.name)


def _put_out(tensor: onnx.TensorProto, data: IO[bytes]) -> onnx.TensorProto:
    """Write a weight at the next page of a file; returns a tensor that says where that is."""
    made = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    if reference.is_reference(tensor) or not tensor.raw_data:
        values = np.ascontiguousarray(array(tensor))
        content = values.data.cast("B") if values.size else b""
    else:
        content = tensor.raw_data
    data.write(b"\0" * (-data.tell() % _PAGE))
    made.data_location = onnx.TensorProto.EXTERNAL
    told = {"location": Path(data.name).name, "offset": str(data.tell()), "length": str(len(content))}
    for key, value in told.items():
        made.external_data.add(key=key, value=value)
    data.write(content)
    return made


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
