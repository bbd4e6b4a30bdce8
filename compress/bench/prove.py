"""The child that proves one cell: it opens one tower on one provider, runs it, and compares it with its own graph."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.data import child, rendered, runtime
from compress.data.child import Channel, Data
from compress.data.items import Request
from compress.data.rendered import Rendered
from compress.data.session import Encoder

Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], NDArray[np.float32]]
ITEMS: Final = 8
CALLS: Final = 7


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has one signature)
    """Prove `tower` of `folder` on `provider` of `runtime`."""
    folder, kind = Path(request["folder"]), request["tower"]
    try:
        feed, expected = _literal(folder, kind)
    except Exception as error:  # then there is nothing to compare with, and nothing is said of this provider
        return {"note": f"its own graph does not run: {_first(error)}"}
    file = folder / getattr(runtime.read(folder).towers, kind).file
    try:
        run = _OPEN[request["runtime"]](file, request["provider"])
    except Exception as error:  # every runtime has its own classes; that it did not open is the result
        return {"loaded": False, "ran": False, "note": _first(error)}
    try:
        found = run(feed)
    except Exception as error:
        return {"loaded": True, "ran": False, "note": _first(error)}
    if found.shape != expected.shape or not np.isfinite(found).all():
        return {"loaded": True, "ran": False, "note": "what it makes is not finite, or of another shape"}
    one = {name: values[:1] for name, values in feed.items()}
    times = [_milliseconds(run, one) for _ in range(CALLS + 2)][2:]
    return {"loaded": True, "ran": True, "parity": lowest_cosine(found, expected), "latency_ms": median(times)}


def _literal(folder: Path, kind: str) -> tuple[Feed, NDArray[np.float32]]:
    """Inputs of a tower, and its output when every node is computed as it is written, on the CPU."""
    told = runtime.read(folder)
    session = runtime.Session(graph_optimization_level="disable")
    encoder = Encoder(folder, told.model_copy(update={"session": session}))
    items = rendered.load(Rendered(), Request(items=ITEMS))
    if kind == "vision":
        images = items.images[:ITEMS]
        return encoder.image_feed(images), encoder.images(images)
    texts = [captions[0] for captions in items.captions[:ITEMS]]
    return encoder.text_feed(texts), encoder.texts(texts)


def _onnxruntime(file: Path, provider: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
    if session.get_providers()[0] != provider:  # it falls back to the CPU without a word
        raise RuntimeError(f"asked for {provider}, got {', '.join(session.get_providers())}")
    return lambda feed: np.asarray(session.run(None, feed)[0], np.float32)


def _openvino(file: Path, provider: str) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(str(file), provider)
    return lambda feed: np.asarray(compiled(feed)[0], np.float32)


_OPEN: Final[dict[str, Callable[[Path, str], Run]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def lowest_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """The lowest cosine between rows (n, d) of the same place; a row of zeros has none and counts as 0."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.where(lengths > 0, (left * right).sum(1) / np.where(lengths > 0, lengths, 1), 0.0).min())


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _milliseconds(run: Run, feed: Feed) -> float:
    started = time.perf_counter()
    run(feed)
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    sys.exit(child.serve(work))
