"""The child that reads an ONNX file of unknown origin: what goes in and comes out, and what it is made of."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compress.core.errors import CompressError, UsageError
from compress.core.progress import Silent
from compress.data import child
from compress.data.child import Channel, Data, Limits
from compress.models import external_data
from compress.targets.graph import census
from compress.targets.graph.session import optimized


@dataclass(frozen=True, slots=True)
class Contents:
    """An ONNX file without a plan to hold it against.

    `external` names the files beside it that hold its weights, `operators` counts nodes as written, `kernels` as
    ONNX Runtime runs them, `weights` bytes by type, `parts` bytes of the file by what they are for.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external: tuple[str, ...]
    operators: Mapping[str, int]
    kernels: Mapping[str, int]
    weights: Mapping[str, int]
    parts: Mapping[str, int]

    def data(self) -> dict[str, Any]:
        """JSON-like data for the gate report."""
        return {name: dict(getattr(self, name)) for name in ("operators", "kernels", "weights", "parts")}


def read(files: Mapping[str, Path], limits: Limits | None = None) -> dict[str, Contents]:
    """What files contain, by the names they are given, read in one child process.

    Raises UsageError for what is no model that runs, IntegrityError for weights said to lie anywhere but in regular
    files beside it, ResourceExhausted where it asks for more than there is.
    """
    request = {name: str(path.resolve()) for name, path in files.items()}  # the child works in a folder of its own
    what = ", ".join(path.name for path in files.values())
    told = child.run("compress.targets.graph.contents", request, limits or Limits.of_machine(), Silent(), what)
    return {name: _contents(told[name]) for name in files}


def _contents(told: Data) -> Contents:
    fields: Data = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return Contents(**fields)


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has one signature)
    """Describe each file; it is opened by ONNX Runtime as well, because what does not run is no candidate."""
    return {name: _guarded(Path(path)) for name, path in request.items()}


def _guarded(path: Path) -> Data:
    try:
        return described(path)
    except (CompressError, MemoryError):
        raise
    except Exception as error:  # protobuf and onnx raise a dozen unrelated classes for files that are broken
        raise child.exhausted(error) or UsageError(f"not a valid ONNX model: {error}", path.name) from error


def described(path: Path) -> Data:
    """The fields of `Contents`, in the process that calls it."""
    model = onnx.load(path, load_external_data=False)
    external_data.check(model, path)
    held = [each for each in external_data.tensors(model) if each.data_location == onnx.TensorProto.EXTERNAL]
    places = {entry.value for tensor in held for entry in tensor.external_data if entry.key == "location"}
    with tempfile.TemporaryDirectory() as scratch:
        kernels = Counter(node.op_type for node in optimized(path, Path(scratch)).graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [value.name for value in model.graph.input if value.name not in weights],
        "outputs": [value.name for value in model.graph.output],
        "external": sorted(places),
        "operators": Counter(node.op_type for node in model.graph.node),
        "kernels": kernels,
        "weights": _bytes_by_type(model),
        "parts": census.parts(model),
    }


def _bytes_by_type(model: onnx.ModelProto) -> Counter[str]:
    """Bytes of the weights by element type; of those in another file the length that is said there."""
    sums: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        told = {entry.key: entry.value for entry in tensor.external_data}
        size = int(told["length"]) if "length" in told else len(tensor.raw_data) or tensor.ByteSize()
        sums[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += size
    return sums


if __name__ == "__main__":
    sys.exit(child.serve(work))
