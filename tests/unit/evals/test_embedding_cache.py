"""Kept embeddings: found again, and never when a byte has changed."""

import numpy as np
import pytest

from compress.evals import cache
from compress.evals.task import Embeddings

MADE = Embeddings(np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32), 18.5, 0.75)


def test_round_trip(tmp_path):
    cache.store(tmp_path, "key", MADE)
    found = cache.load(tmp_path, "key")
    np.testing.assert_array_equal(found.images, MADE.images)
    np.testing.assert_array_equal(found.texts, MADE.texts)
    assert (found.logit_scale, found.batch_cosine) == (18.5, 0.75)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "key.npz"]
    assert cache.load(tmp_path, "other") is None


@pytest.mark.parametrize("at", range(0, 540, 90))
def test_a_changed_byte_is_as_if_it_was_not_there(tmp_path, at):
    cache.store(tmp_path, "key", MADE)
    content = bytearray((tmp_path / "key.npz").read_bytes())
    content[at] ^= 1
    (tmp_path / "key.npz").write_bytes(content)
    assert cache.load(tmp_path, "key") is None


@pytest.mark.parametrize("seal", [b"", b"{}", b"[]", b'{"sha256": 3}', b"\xff"])
def test_a_broken_seal(tmp_path, seal):
    cache.store(tmp_path, "key", MADE)
    (tmp_path / "key.json").write_bytes(seal)
    assert cache.load(tmp_path, "key") is None


def test_half_written(tmp_path):
    cache.store(tmp_path, "key", MADE)
    (tmp_path / "key.npz").unlink()
    assert cache.load(tmp_path, "key") is None


def test_the_key_covers_model_data_and_batch(tmp_path):
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "compress").mkdir()
    weights, runtime = folder / "onnx" / "vision_model.onnx", folder / "compress" / "runtime.json"
    weights.write_bytes(b"a")
    runtime.write_bytes(b"{}")
    first = cache.key_of(folder, "data", 32)
    (folder / "compress" / "gate_report.json").write_bytes(b"{}")
    assert cache.key_of(folder, "data", 32) == first
    keys = {first, cache.key_of(folder, "other", 32), cache.key_of(folder, "data", 16)}
    weights.write_bytes(b"b")
    keys.add(cache.key_of(folder, "data", 32))
    runtime.write_bytes(b"{ }")
    keys.add(cache.key_of(folder, "data", 32))
    assert len(keys) == 5
