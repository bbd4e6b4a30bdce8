"""What encoding costs inside a gate run, beside plain ONNX Runtime inference on the same images.

    python benchmarks/gate_cost.py [--model pocket-clip] [--task zero_shot] [--items 1536]

Both sides are fresh processes that make every image once (rendered or decoded, as the task says), preprocess it as the
artifact asks for, and run it in batches of 32 on the same number of threads, images and texts.

gate    what a gate run does for one model: `evals.encode.encode`, a limited child that loads the task, checks that the
        data are those that were meant, encodes, compares items alone with items in a batch and hands embeddings back
plain   a script of a few lines: `onnxruntime.InferenceSession.run`, embeddings thrown away

They take turns; what is printed is smallest, median and largest over the rounds, in all and without the start of a
process (interpreter, imports, opening of sessions: the same with two images), which is paid once per model. Seconds of
the clock count only on an idle machine; seconds of the processor are printed beside them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from compress.data.items import Request
from compress.data.session import Encoder
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.gates.outcomes import Unmeasured
from compress.pipeline.options import Options
from compress.pipeline.runnable import runnable

BATCH = How().batch


def plain(folder: Path, name: str, items: int) -> None:
    """Run both towers over the task's data."""
    import onnxruntime as ort

    encoder = Encoder(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = encoder.runtime.session.intra_op_num_threads
    opened = [
        (ort.InferenceSession(str(folder / tower.file.file), options), feed, tower.file.output)
        for tower, feed in ((encoder.vision, encoder.image_feed), (encoder.text, encoder.text_feed))
        if tower is not None
    ]
    data = tasks.find(name).kind.load(tasks.find(name).spec, Request("release", items))
    for (session, feed, output), given in zip(opened, (data.images, data.texts), strict=True):
        for at in range(0, len(given), BATCH):
            session.run([output], feed([given[place] for place in range(at, min(at + BATCH, len(given)))]))


def run_plain(folder: Path, name: str, items: int) -> None:
    """The plain process."""
    words = [sys.executable, __file__, "--plain", "--model", str(folder), "--task", name, "--items", str(items)]
    subprocess.run(words, check=True)


def run_gate(folder: Path, job: Job) -> None:
    """The gate's way of encoding."""
    made = encode(folder, {"timed": job}, How())["timed"]
    if isinstance(made, Unmeasured):
        raise SystemExit(made.reason)


def timed(work: Callable[[], None]) -> NDArray[np.float64]:
    """Seconds of the clock, and of the processor in this process and its children."""
    before = time.perf_counter(), _processor()
    work()
    return np.array([time.perf_counter() - before[0], _processor() - before[1]])


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="pocket-clip", help="an artifact, or a model that is exported first")
    parser.add_argument("--task", default="zero_shot")
    parser.add_argument("--items", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="be the plain process")
    given = parser.parse_args()
    if given.plain:
        plain(Path(given.model), given.task, given.items)
        return
    with tempfile.TemporaryDirectory() as place:
        compare(given, runnable(given.model, Options(output=Path(place))).resolve())


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Measure in turns, print."""
    task = tasks.find(given.task)
    few, request = Request("release", 2), Request("release", given.items)
    job, start = (Job(task, each, task.load(each)) for each in (request, few))
    rounds = []
    for _ in range(given.rounds):
        each = [
            timed(lambda: run_gate(folder, job)),
            timed(lambda: run_plain(folder, given.task, given.items)),
            timed(lambda: run_gate(folder, start)),
            timed(lambda: run_plain(folder, given.task, 2)),
        ]
        rounds.append([*each[:2], each[0] - each[2], each[1] - each[3]])
    print(
        f"{given.task} on {given.model}: {len(job.data.ids)} images, {len(job.data.texts)} texts, {given.rounds} rounds"
    )
    seconds = np.array(rounds)  # (rounds, side, clock or processor)
    for kind, clock in (("clock", 0), ("processor", 1)):
        for name, at in (("whole process", 0), ("without its start", 2)):
            gate, other = (1000 * median(seconds[:, side, clock]) / len(job.data.ids) for side in (at, at + 1))
            ratios = seconds[:, at, clock] / seconds[:, at + 1, clock]
            spread = ", ".join(f"{end:.2f}" for end in (ratios.min(), median(ratios), ratios.max()))
            print(f"  {kind}, {name}: {gate:.3f} ms an image beside {other:.3f} ms plain, ratio {spread}")


if __name__ == "__main__":
    main()
