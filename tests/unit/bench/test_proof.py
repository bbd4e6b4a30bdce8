"""The proof matrix: what ran is proved, what did not says why, and nothing is taken from one cell to another."""

import importlib.util

import numpy as np
import pytest
import tiny_towers

from compress.bench import proof, prove
from compress.bench.proof import PLACES, Cell
from compress.core.progress import Silent
from compress.models.treatment import StaticInt8
from compress.steps.quantize._rounding import int8_per_channel
from compress.targets import tensorrt
from compress.targets.graph.emitter import weight_matrix


@pytest.fixture
def artifact(tiny_encoder, tmp_path):
    for tower in tiny_encoder.towers.values():
        for site in tower.sites:
            if site.role.startswith("mlp"):
                held = StaticInt8(*int8_per_channel(weight_matrix(tower, site)), 0.02)
                tower.treatments[site.name] = held
    tensorrt.export(tiny_encoder, tmp_path)
    return tmp_path


def test_every_cell_is_there(artifact):
    cells = proof.matrix(artifact, {"vision": 2.5}, Silent())
    assert [(each.runtime, each.provider) for each in cells[::2]] == list(PLACES)
    assert [each.tower for each in cells] == ["vision", "text"] * len(PLACES)
    gated = cells[:2]
    assert [(each.loaded, each.ran, each.latency_ms) for each in gated] == [(True, True, 2.5), (True, True, None)]
    for each in cells[2:]:
        if each.ran is None:  # the text tower has fewer words than a text has bytes: its own graph does not run
            assert (each.loaded, each.parity, each.latency_ms) == (None, None, None)
            assert each.note


def test_a_cell_that_runs(artifact):
    told = prove.work({"folder": str(artifact), "tower": "vision", "runtime": "onnxruntime",
                       "provider": "CPUExecutionProvider"}, None)  # fmt: skip
    assert told["loaded"]
    assert told["ran"]
    assert 0.999 < told["parity"] <= 1.000001
    assert told["latency_ms"] > 0


def test_a_file_that_does_not_open_and_a_provider_that_is_not_there(artifact):
    asked = {"folder": str(artifact), "tower": "vision", "runtime": "onnxruntime", "provider": "NoneExecutionProvider"}
    told = prove.work(asked, None)
    assert (told["loaded"], told["ran"]) == (False, False)
    assert told["note"]


def test_what_is_not_finite_did_not_run(artifact, monkeypatch):
    monkeypatch.setitem(prove._OPEN, "onnxruntime", lambda *_: lambda feed: np.full((8, tiny_towers.JOINT), np.nan))
    told = prove.work({"folder": str(artifact), "tower": "vision", "runtime": "onnxruntime", "provider": "X"}, None)
    assert (told["loaded"], told["ran"]) == (True, False)
    assert "parity" not in told


def test_cosine_of_noughts_is_nought():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert prove.lowest_cosine(rows, rows) == 0.0
    assert prove.lowest_cosine(rows[:1], np.array([[4.0, 3.0]], np.float32)) == pytest.approx(24 / 25)


def test_an_engine_is_proved_by_every_tower_or_not_at_all():
    cells = [Cell("v", "vision", "onnxruntime", "T", True, True), Cell("t", "text", "onnxruntime", "T", True, False)]
    assert not proof.proved(cells, "T")
    assert proof.proved(cells[:1], "T")
    assert not proof.proved([], "T")
    assert not proof.proved([Cell("v", "vision", "onnxruntime", "T")], "T")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed: extra [openvino]")
def test_openvino_opens_the_same_file(artifact):
    told = prove.work({"folder": str(artifact), "tower": "vision", "runtime": "openvino", "provider": "CPU"}, None)
    assert told["ran"], told
    assert told["parity"] > 0.99
