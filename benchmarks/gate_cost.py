"""What encoding costs inside a gate run, beside plain ONNX Runtime inference on the same images.

    python benchmarks/gate_cost.py [--model pocket-clip] [--task zero_shot] [--items 1536]

Both sides are fresh processes that make every image once (rendered or decoded, as the task says), preprocess it as the
artifact asks for, and run it in batches of 32 on the same number of threads, images and texts.

gate    what a gate run does for one model: `evals.encode.encode`, a limited child that loads the task, checks that the
        data are those that were meant, encodes, compares items alone with items in a batch and hands embeddings back
plain   a script of a few lines: `onnxruntime.InferenceSession.run`, embeddings thrown away

They take turns; what is printed is smallest, median and largest over the rounds, in all and without the start of a
process (interpreter, imports, opening of sessions), which is paid once per model and not per image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from compress.data.items import Request
from compress.data.session import Encoder
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.pipeline.options import Options
from compress.pipeline.runnable import runnable

BATCH = How().batch


def plain(folder: Path, name: str, items: int) -> None:
    """Run both towers over the task's data and print the seconds between the opened sessions and the end."""
    import onnxruntime as ort

    encoder = Encoder(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = encoder.runtime.session.intra_op_num_threads
    opened = [
        (ort.InferenceSession(str(folder / tower.file.file), options), feed, tower.file.output)
        for tower, feed in ((encoder.vision, encoder.image_feed), (encoder.text, encoder.text_feed))
        if tower is not None
    ]
    started = time.perf_counter()
    data = tasks.find(name).kind.load(tasks.find(name).spec, Request("release", items))
    for (session, feed, output), given in zip(opened, (data.images, data.texts), strict=True):
        for at in range(0, len(given), BATCH):
            session.run([output], feed([given[place] for place in range(at, min(at + BATCH, len(given)))]))
    print(json.dumps(time.perf_counter() - started))


def timed_plain(folder: Path, name: str, items: int) -> tuple[float, float]:
    """Seconds of the whole process, and of its work."""
    started = time.perf_counter()
    words = [sys.executable, __file__, "--plain", "--model", str(folder), "--task", name, "--items", str(items)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - started, json.loads(told)


def timed_gate(folder: Path, job: Job) -> float:
    """Seconds that the gate's way of encoding takes."""
    started = time.perf_counter()
    made = encode(folder, {"timed": job}, How())
    if not hasattr(made["timed"], "images"):
        raise SystemExit(str(made["timed"]))
    return time.perf_counter() - started


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
        gate, started = timed_gate(folder, job), timed_gate(folder, start)
        rounds.append((gate, gate - started, *timed_plain(folder, given.task, given.items)))
    print(
        f"{given.task} on {given.model}: {len(job.data.ids)} images, {len(job.data.texts)} texts, {given.rounds} rounds"
    )
    for name, new, old in (("whole process", 0, 2), ("without its start", 1, 3)):
        ratios = sorted(each[new] / each[old] for each in rounds)
        gate, other = (1000 * median(each[at] for each in rounds) / len(job.data.ids) for at in (new, old))
        print(f"  {name}: {gate:.3f} ms an image beside {other:.3f} ms plain, "
              f"ratio {ratios[0]:.2f}, {median(ratios):.2f}, {ratios[-1]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
