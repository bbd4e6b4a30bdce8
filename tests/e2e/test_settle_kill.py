"""kill -9 at any point of building and settling: the target is absent or complete, and the next run recovers."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "artifact"))
import artifact_sample as sample

from compress.artifact.staging import Store
from compress.artifact.verify import verify
from compress.core.errors import ConflictError

PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # what was written outlives a kill without it


def build(root, variant, replace=True):
    """One run: 20 weight files that say which run they come from."""
    with Store(root).stage("tiny") as staging:
        for i in range(20):
            staging.write(f"onnx/{i}.onnx", f"{variant} {i}".encode())
        sample.write_payload(staging)
        sample.write_evidence(staging)
        staging.settle("passed", replace)


class Countdown:
    """Counts entries to and returns from C functions, those of the system among them; kills its process at one."""

    def __init__(self, left, only=()):
        self.left, self.only, self.seen = left, only, 0

    def __call__(self, frame, event, argument):
        if event in ("c_call", "c_return") and (not self.only or argument.__name__ in self.only):
            self.seen += 1
            if self.seen == self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def build_counted(root, countdown, seen=None):
    sys.setprofile(countdown)
    build(root, "new")
    sys.setprofile(None)
    if seen is not None:
        seen.value = countdown.seen


def in_child(target, *arguments):
    child = PROCESSES.Process(target=target, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


def complete_variant(root):
    """Which run the released artifact comes from, None if there is none; raises if it is not whole."""
    target = root / "released" / "tiny"
    if not target.exists():
        return None
    verify(target)
    (variant,) = {path.read_text().split()[0] for path in (target / "onnx").glob("?*.onnx") if path.stem.isdigit()}
    return variant


def left_behind(root):
    return [path.name for path in (root / "staging").iterdir() if path.name != ".tiny.lock"]


def prepare(root, replacing):
    if replacing:
        build(root, "old")
    return root


def count_calls(root, only):
    build(root.parent / "warm", "new")  # what is imported at first use is imported now
    seen = PROCESSES.Value("i", 0)
    assert in_child(build_counted, root, Countdown(-1, only), seen) == 0
    return seen.value


@pytest.mark.slow
@pytest.mark.parametrize("replacing", [False, True], ids=["first release", "replacement"])
@pytest.mark.parametrize("only", [(), ("rename", "replace", "rmdir")], ids=["any call", "every rename"])
def test_killed_while_working(tmp_path, only, replacing):
    calls = count_calls(prepare(tmp_path / "counted", replacing), only)
    step = 1 if only else calls // 70
    last = calls if only else calls - step  # their number varies a little, that of renames does not
    outcomes = set()
    for kill_at in range(step, last + 1, step):
        root = prepare(tmp_path / str(kill_at), replacing)
        assert in_child(build_counted, root, Countdown(kill_at, only)) == -signal.SIGKILL
        there = complete_variant(root)
        outcomes.add(there)
        with Store(root).stage("tiny"):  # the next run of this name
            assert complete_variant(root) == (there or ("old" if replacing else None))
        assert left_behind(root) == []
    possible = {"old", "new", None} if replacing else {"new", None}
    assert outcomes <= possible
    assert outcomes == possible or not only


def test_killed_at_random_times_in_one_folder(tmp_path):
    draw = random.Random(16)
    began = time.monotonic()
    build(tmp_path, "0")
    took = time.monotonic() - began
    last = "0"
    for run in range(1, 41):
        child = PROCESSES.Process(target=build, args=(tmp_path, str(run)))
        child.start()
        time.sleep(draw.uniform(0, 1.2 * took))
        child.kill()
        child.join(60)
        there = complete_variant(tmp_path)
        assert there in (last, str(run), None)
        last = there or last
    build(tmp_path, "end")
    assert complete_variant(tmp_path) == "end"
    assert left_behind(tmp_path) == []


def hold(root, held):
    with Store(root).stage("tiny"):
        held.set()
        time.sleep(60)


def test_a_second_run_is_refused_until_the_first_dies(tmp_path):
    held = PROCESSES.Event()
    first = PROCESSES.Process(target=hold, args=(tmp_path, held))
    first.start()
    assert held.wait(30)
    with pytest.raises(ConflictError):
        build(tmp_path, "second")
    first.kill()
    first.join(30)
    assert (tmp_path / "staging" / ".tiny.lock").exists()
    build(tmp_path, "second")
    assert complete_variant(tmp_path) == "second"
    assert left_behind(tmp_path) == []
