"""Sessions run where they were asked to run, and what they cannot open is told as an error of ours."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compress.core.errors import EnvironmentFailure, ResourceExhausted, UsageError
from compress.targets.graph import kernels
from compress.targets.graph.session import open_session, run


def test_a_provider_that_is_not_here(tiny_encoder):
    with pytest.raises(EnvironmentFailure, match="has no TensorrtExecutionProvider"):
        open_session(tiny_encoder.towers["text"].graph, ["TensorrtExecutionProvider"])


def test_a_provider_that_falls_back(tiny_encoder, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])

    class Fallen:
        def __init__(self, *_, **__):
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(EnvironmentFailure, match="ONNX Runtime runs CPUExecutionProvider"):
        open_session(tiny_encoder.towers["text"].graph, ["CUDAExecutionProvider"])


def test_a_graph_it_does_not_take(tiny_encoder):
    broken = onnx.ModelProto()
    broken.CopyFrom(tiny_encoder.towers["text"].graph)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(UsageError, match="does not take the graph"):
        open_session(broken)


def test_a_feed_it_does_not_take(tiny_encoder):
    opened = open_session(tiny_encoder.towers["text"].graph)
    with pytest.raises(UsageError, match="does not take the graph"):
        run(opened, ["text_embeds"], {"input_ids": np.array([[99]])})


def test_kernels_are_counted_wherever_the_file_is_named_from(tiny_encoder, tmp_path, monkeypatch):
    graph = tiny_encoder.towers["text"].graph
    onnx.save(graph, tmp_path / "text.onnx")
    monkeypatch.chdir(tmp_path)
    assert kernels.chosen(Path("text.onnx")) == kernels.chosen(tmp_path / "text.onnx")
    assert sum(kernels.chosen(Path("text.onnx")).values()) >= 1


def test_memory_that_runs_out(tiny_encoder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 274877906944")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ResourceExhausted, match="memory ran out"):
        open_session(tiny_encoder.towers["text"].graph)
