"""ONNX Runtime sessions that run where they were asked to run, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from compress.core.errors import EnvironmentFailure, ResourceExhausted, UsageError
from compress.data.child import out_of_memory

CPU = ("CPUExecutionProvider",)


def open_session(model: onnx.ModelProto | Path, providers: Sequence[str] = CPU) -> onnxruntime.InferenceSession:
    """A session on exactly the providers asked for.

    ONNX Runtime only warns when a provider is missing and falls back to the CPU; this raises EnvironmentFailure.
    Raises UsageError for a graph that it does not take, ResourceExhausted where memory ran out on the way.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing:
        raise EnvironmentFailure(
            f"ONNX Runtime has no {', '.join(missing)}",
            hint=f"this build offers {', '.join(onnxruntime.get_available_providers())}",
        )
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        if out_of_memory(error):
            raise ResourceExhausted(f"memory ran out while opening the graph: {error}") from error
        raise UsageError(f"ONNX Runtime does not take the graph: {error}") from error
    if session.get_providers()[: len(providers)] != list(providers):
        raise EnvironmentFailure(
            f"asked for {', '.join(providers)}, ONNX Runtime runs {', '.join(session.get_providers())}"
        )
    return session


def optimized(path: Path, scratch: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs for a file on this CPU, written below `scratch` and read back."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(scratch / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=list(CPU))
    return onnx.load(options.optimized_model_filepath)
