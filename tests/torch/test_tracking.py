"""Trackers: what is sent is in their files, and a package that is missing is said before anything is trained."""

import importlib.util
import struct

import pytest
import tiny_towers
import tiny_training

from compress.core import names
from compress.core.errors import EnvironmentFailure
from compress.models.tower import copied
from compress.steps.distill import _tracking
from compress.steps.step import Context


def records(file):
    """The records of an event file: a length (8 bytes), its checksum (4), the bytes, their checksum (4)."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + size]
        at += size + 16


def test_no_tracker_takes_everything_and_sends_nothing(tmp_path):
    track = _tracking.opened("none", "run", tmp_path)
    track(1, {"loss": 0.5})
    track.close()
    assert not list(tmp_path.iterdir())


def test_values_are_in_the_event_file(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    track = _tracking.opened("tensorboard", "run", tmp_path)
    track(3, {"held-out loss": 0.15625, "learning rate": float("nan")})
    track.close()
    (file,) = (tmp_path / "run").iterdir()
    (told,) = [each for each in records(file) if b"held-out" in each]
    assert struct.pack("<f", 0.15625) in told
    assert b"\x10\x03" in told  # field 2 of an event is its step
    assert not [each for each in records(file) if b"rate" in each]


@pytest.mark.parametrize(("tracker", "named"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard or tensorboardX")])
def test_a_package_that_is_missing(tracker, named, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match=f"{named} is not installed") as caught:
        _tracking.opened(tracker, "run", tmp_path)
    assert caught.value.exit_code == 5
    assert {"mlflow": "install mlflow", "tensorboard": "compress-encoders[tensorboard]"}[tracker] in caught.value.hint


def test_a_step_sends_its_losses(tmp_path, tiny_encoder):
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    teacher = copied(tiny_encoder)
    apply = names.load("compress.steps", "prune.mlp")
    apply.apply(tiny_encoder, apply.Spec(ratio=0.5), Context(lambda kind: tiny_towers.feeds(kind, 12)))
    method = names.load("compress.steps", "distill.features")
    data = tiny_training.TinySet(tiny_training.stored(32))
    context = Context(
        training=data, teacher=teacher, cache=tmp_path / "cache", work=tmp_path / ".a.checkpoint" / "step1"
    )
    report = method.apply(tiny_encoder, method.Spec(steps=3, batch=8, tracker="tensorboard"), context)
    (file,) = (tmp_path / "cache" / "runs" / "a-step1").iterdir()
    sent = [each for each in records(file) if b"loss" in each]
    losses = next(each for each in report.curves if each.name == "loss").values
    assert sum(struct.pack("<f", value) in each for value in losses for each in sent) == 3


def test_a_package_that_is_missing_is_told_before_anything_else(tiny_encoder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    method = names.load("compress.steps", "distill.features")
    with pytest.raises(EnvironmentFailure, match="mlflow is not installed"):
        method.apply(tiny_encoder, method.Spec(steps=3, tracker="mlflow"), Context())
