"""ONNX Runtime sessions that run where they were asked to run, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core.errors import CompressError, EnvironmentFailure, ResourceExhausted, UsageError
from compress.data.child import out_of_memory

if TYPE_CHECKING:
    import onnxruntime

CPU = ("CPUExecutionProvider",)


def open_session(model: onnx.ModelProto | Path, providers: Sequence[str] = CPU) -> onnxruntime.InferenceSession:
    """A session on exactly the providers asked for.

    ONNX Runtime only warns when a provider is missing and falls back to the CPU; this raises EnvironmentFailure.
    Raises UsageError for a graph that it does not take, ResourceExhausted where memory ran out on the way.
    """
    import onnxruntime  # here, because reading a recipe imports its methods and must answer at once

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    require(providers)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise _told(error) from error
    if session.get_providers()[: len(providers)] != list(providers):
        raise EnvironmentFailure(
            f"asked for {', '.join(providers)}, ONNX Runtime runs {', '.join(session.get_providers())}"
        )
    return session


def require(providers: Sequence[str], hint: str = "") -> None:
    """Raise EnvironmentFailure where ONNX Runtime lacks one of the providers."""
    import onnxruntime

    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing:
        offered = f"this build offers {', '.join(onnxruntime.get_available_providers())}"
        raise EnvironmentFailure(f"ONNX Runtime has no {', '.join(missing)}", hint=hint or offered)


def run(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feed: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]]:
    """The named outputs. Raises UsageError where the graph and the feed do not go together, ResourceExhausted."""
    try:
        found: list[NDArray[np.generic]] = session.run(list(outputs), dict(feed))
    except Exception as error:
        raise _told(error) from error
    return found


def _told(error: Exception) -> CompressError:
    """What ONNX Runtime raised, as an error of ours."""
    if out_of_memory(error):
        return ResourceExhausted(f"memory ran out in ONNX Runtime: {error}")
    return UsageError(f"ONNX Runtime does not take the graph: {error}")


def optimized(path: Path, scratch: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs for a file on this CPU, written below `scratch` and read back.

    Raises UsageError for a graph that it does not take, ResourceExhausted where memory ran out on the way.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(scratch / "optimized.onnx")
    try:
        onnxruntime.InferenceSession(str(path), options, providers=list(CPU))
    except Exception as error:
        raise _told(error) from error
    return onnx.load(options.optimized_model_filepath, load_external_data=False)  # its weights stay where they are
