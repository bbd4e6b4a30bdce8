"""The child that asks ONNX Runtime which kernels it makes of a file: opening a file is never done in the parent."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from compress.core.progress import Silent
from compress.data import child
from compress.data.child import Channel, Data, Limits
from compress.targets.graph.session import optimized


def chosen(path: Path) -> dict[str, int]:
    """How often each operator stands in the graph that ONNX Runtime really runs for a file on this CPU."""
    request = {"file": str(path.resolve())}  # the child works in a folder of its own
    told = child.run("compress.targets.graph.kernels", request, Limits.of_machine(), Silent(), path.name)
    kernels: dict[str, int] = told["kernels"]
    return kernels


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has one signature)
    """Count the operators of the optimized graph of `file`."""
    with tempfile.TemporaryDirectory() as scratch:
        model = optimized(Path(request["file"]), Path(scratch))
    return {"kernels": Counter(node.op_type for node in model.graph.node)}


if __name__ == "__main__":
    sys.exit(child.serve(work))
