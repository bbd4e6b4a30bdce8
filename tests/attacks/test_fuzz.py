"""Mutated files through the real opening paths, in a child that may die: this process lives, and nothing passes.

A sample by default; `pytest --fuzz 10000` (in `make test-all`) opens that many ONNX files and as many documents. What
a number stands for follows from the seed: `python tests/attacks/fuzz_worker.py KIND SEED NUMBER NUMBER+1`.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import fuzz_worker
import pytest

WORKER = Path(fuzz_worker.__file__)
SEED = 20261121
OF_THE_RUNTIME = {"Microsoft", ".ses", "mat-debug.log"}
PATIENCE = 30.0
"""Seconds for one file, on a machine that has other things to do; a file that takes longer hangs."""


def opened(kind, numbers, place):
    """Outcome by number. A child that dies or hangs is noted with the file it had, and the next one takes over."""
    outcomes = {}
    first, last = numbers.start, numbers.stop
    while first < last:
        scratch = place / f"{kind}-{first}"
        scratch.mkdir()
        words = [sys.executable, str(WORKER), kind, str(SEED), str(first), str(last)]
        with subprocess.Popen(
            words, cwd=scratch, stdout=subprocess.PIPE, text=True, env=surroundings(place)
        ) as process:
            ended = followed(process, outcomes)
        running = next((number for number in range(first, last) if outcomes.get(number) == "started"), None)
        if running is None and ended == "gone":
            if len(outcomes) < last - numbers.start:
                raise RuntimeError(f"the child ended with {process.returncode} before it opened a file")
            break
        running = first if running is None else running
        outcomes[running] = "hung" if ended == "silent" else f"died: {-process.returncode}"
        first = running + 1
    return outcomes


def followed(process, outcomes):
    """Read a child's lines; "gone" when it has ended, "silent" when it had to be killed."""
    lines = queue.Queue()
    reader = threading.Thread(target=pump, args=(process.stdout, lines), daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            process.kill()
            process.wait()
            return "silent"
        if line is None:
            process.wait()
            return "gone"
        told = json.loads(line)
        outcomes[told.get("done", told.get("started"))] = told.get("outcome", "started")


def pump(stream, lines):
    """Every line of a stream, and None at its end."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def surroundings(place):
    """The environment of a child, whose home and temporary files are in the place that is looked at afterwards."""
    home, temporary = place / "home", place / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    return {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}


def outside(place):
    """Whatever lies where no child should have written; ONNX Runtime itself leaves an id of the device."""
    found = (path for folder in ("home", "tmp") for path in (place / folder).rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not OF_THE_RUNTIME & {*path.parts})


def told(kind, outcomes, record_property):
    """The outcomes by class, for whoever reads the log; a file that made something go wrong is named with its seed."""
    counts = Counter(outcome.split(": bug")[0][:60] for outcome in outcomes.values())
    print(f"\n{kind}: {len(outcomes)} files, seed {SEED}")
    for outcome, count in counts.most_common():
        print(f"  {count:6} {outcome}")
    record_property(f"outcomes {kind}", json.dumps(counts))
    wrong = {number: outcome for number, outcome in outcomes.items() if outcome.startswith(("bug", "hung"))}
    assert not wrong, f"{kind} with seed {SEED}: {dict(list(wrong.items())[:10])}"


@pytest.mark.timeout(7200)
def test_no_mutated_onnx_file_passes_or_takes_the_parent_with_it(tmp_path, request, record_property):
    count = request.config.getoption("--fuzz")
    outcomes = opened("onnx", range(count), tmp_path)
    assert sorted(outcomes) == list(range(count))
    told("onnx", outcomes, record_property)
    assert sum(outcome.startswith("refused") for outcome in outcomes.values()) > count / 3
    assert (
        sum(outcome.startswith("opened") for outcome in outcomes.values()) > count / 100
    )  # else it only tests a parser
    assert outside(tmp_path) == []


@pytest.mark.timeout(7200)
def test_no_mutated_document_verifies_or_is_read_as_another(tmp_path, request, record_property):
    count = -(-request.config.getoption("--fuzz") // len(fuzz_worker.DOCUMENTS))
    for kind in fuzz_worker.DOCUMENTS:
        outcomes = opened(kind, range(count), tmp_path)
        assert sorted(outcomes) == list(range(count))
        told(kind, outcomes, record_property)
        assert not [each for each in outcomes.values() if each.startswith("died")]
    assert outside(tmp_path) == []


def test_the_same_number_is_the_same_file(tmp_path):
    one, two = (opened("manifest", range(5, 8), tmp_path / name) for name in made(tmp_path, "one", "two"))
    assert one == two


def made(tmp_path, *names):
    """Fresh folders."""
    for name in names:
        (tmp_path / name).mkdir()
    return names


def test_a_child_that_dies_is_noted_and_followed_by_another(tmp_path, monkeypatch):
    """A worker that dies at 2 and hangs at 4."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys, time\n"
        "for number in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    print(json.dumps({'started': number}), flush=True)\n"
        "    if number == 2: os.abort()\n"
        "    if number == 4: time.sleep(60)\n"
        "    print(json.dumps({'done': number, 'outcome': 'fine'}), flush=True)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "WORKER", worker)
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 1.0)
    found = opened("onnx", range(6), tmp_path)
    assert found == {0: "fine", 1: "fine", 2: "died: 6", 3: "fine", 4: "hung", 5: "fine"}
