"""The child that runs a file with ONNX Runtime's profiler on, and counts on which provider its products ran."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from compress.core.progress import Silent
from compress.data import child
from compress.data.child import Channel, Data, Limits

PRODUCTS: Final = ("MatMul", "Gemm", "Conv", "FusedMatMul", "MatMulNBits", "MatMulIntegerToFloat", "FusedConv")
"""Operators in which the work is done, by the names that ONNX Runtime gives them after its fusions."""

_KINDS: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}
_LENGTH: Final = 8


def of_products(path: Path, providers: Sequence[str]) -> dict[str, int]:
    """How many products ran on each provider. Raises EnvironmentFailure where one asked for is not there."""
    request = {"file": str(path.resolve()), "providers": list(providers)}
    told = child.run("compress.targets.graph.placement", request, Limits(), Silent(), f"placement of {path.name}")
    placed: dict[str, int] = told["placed"]
    return placed


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has one signature)
    """Run `file` once on `providers` with one item of noughts."""
    import onnxruntime

    from compress.targets.graph.session import require

    require(request["providers"])
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(request["file"], options, providers=request["providers"])
        session.run(None, {each.name: _noughts(each) for each in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return {"placed": placed(events)}


def placed(events: Sequence[Any]) -> dict[str, int]:
    """Products by provider, from the events of a profile; a node counts once however often it ran."""
    nodes = {
        (event["name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node"
        and event.get("args", {}).get("op_name") in PRODUCTS
        and event["args"].get("provider")
    }
    return dict(Counter(provider for _, provider in nodes))


def _noughts(given: Any) -> np.ndarray[Any, Any]:
    """An input of a session: one item; what else is not fixed has a length of 8."""
    sizes = [size if isinstance(size, int) else (_LENGTH if at else 1) for at, size in enumerate(given.shape)]
    kind: Any = _KINDS.get(given.type, np.int64)
    return np.ones(sizes, kind) if kind is np.int64 else np.zeros(sizes, kind)


if __name__ == "__main__":
    sys.exit(child.serve(work))
