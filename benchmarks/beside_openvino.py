"""Our int8 in ONNX Runtime beside nncf's int8 in OpenVINO: times in turn in one process, and what each spends them on.

    python benchmarks/beside_openvino.py --peer ENV/bin/python     # a Python that has openvino and nncf
    python benchmarks/beside_openvino.py --peer ENV/bin/python --shapes ViT-B/16 --batches 1

nncf quantizes in its own environment; openvino is imported from there. Both runtimes get the same number of threads and
the same float graph. OpenVINO runs as it is by default, and once more with what is not in 8 bits in float32. Rewrites
the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import speed
from numpy.typing import NDArray

from compress.bench.latency import spread
from compress.models.tower import Encoder
from compress.steps.quantize import int8_static
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

BEGIN, END = "<!-- openvino: begin, written by benchmarks/beside_openvino.py -->", "<!-- openvino: end -->"
Feed = Mapping[str, NDArray[np.generic]]
Call = Callable[[], object]

NNCF = """
import sys
import nncf, numpy as np, openvino
source, target, feed = sys.argv[1:]
model = openvino.Core().read_model(source)
held = dict(np.load(feed))
items = [{name: rows[at:at + 1] for name, rows in held.items()} for at in range(len(next(iter(held.values()))))]
made = nncf.quantize(model, nncf.Dataset(items), subset_size=len(items), model_type=nncf.ModelType.TRANSFORMER)
openvino.save_model(made, target, compress_to_fp16=False)
"""


def quantized(encoder: Encoder, folder: Path, peer: Path) -> dict[str, dict[str, Path]]:
    """The files of every tower: `float` and `ours` for ONNX Runtime, `nncf` for OpenVINO."""
    for name in ("float", "ours"):
        (folder / name).mkdir()
    onnxruntime_cpu.export(encoder, folder / "float")
    treated = speed.fresh(encoder)
    options = {"range": "percentile", "include": ("patch_embed", *int8_static.DEFAULT)}
    int8_static.apply(treated, int8_static.Spec(**options), Context(lambda kind: speed.noise(encoder, kind)))
    onnxruntime_cpu.export(treated, folder / "ours")
    made = {name: speed.towers_of(folder / name) for name in ("float", "ours")}
    for kind, path in made["float"].items():
        feed = folder / f"{kind}.npz"
        np.savez(feed, **speed.batches(encoder, kind, 4, tokens=77)[0])
        target = folder / f"{kind}.xml"
        words = [str(peer), "-c", NNCF, str(path), str(target), str(feed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-1500:])
        made.setdefault("nncf", {})[kind] = target
    return made


def calls(files: Mapping[str, Path], feed: Feed, threads: int) -> dict[str, Call]:
    """A call of every runtime on the same feed."""
    import openvino

    made: dict[str, Call] = {}
    for name in ("float", "ours"):
        session = onnxruntime.InferenceSession(str(files[name]), _options(threads), providers=["CPUExecutionProvider"])
        made[name] = lambda session=session: session.run(None, feed)
    for name, precision in (("nncf", {}), ("nncf, f32", {"INFERENCE_PRECISION_HINT": "f32"})):
        compiled = openvino.Core().compile_model(str(files["nncf"]), "CPU", _asked(threads) | precision)
        made[name] = partial(compiled.create_infer_request().infer, feed)
    return made


def _asked(threads: int) -> dict[str, Any]:
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}


def _options(threads: int, profile: Path | None = None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would take OpenVINO's cores
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options


def in_turn(made: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call by round; the order turns round by round."""
    taken: dict[str, list[float]] = {name: [] for name in made}
    for call in made.values():
        call()
    for at in range(rounds):
        for name in sorted(made, reverse=bool(at % 2)):
            started = time.perf_counter()
            made[name]()
            taken[name].append((time.perf_counter() - started) * 1e3)
    return taken


def row(kind: str, size: int, taken: Mapping[str, Sequence[float]]) -> str:
    """A line of the table: ratios by round."""

    def ratio(new: str, old: str) -> str:
        score = spread([a / b for a, b in zip(taken[new], taken[old], strict=True)])
        return f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"

    cells = kind, size, f"{median(taken['float']):.1f} ms", ratio("ours", "float"), ratio("nncf", "float")
    return f"| {' | '.join(map(str, (*cells, ratio('ours', 'nncf'), ratio('ours', 'nncf, f32'))))} |"


def spent(files: Mapping[str, Path], feed: Feed, threads: int, times: int = 5) -> list[str]:
    """What each runtime spends its time on, by kind of node: milliseconds and the number of nodes."""
    import openvino

    kinds: dict[str, dict[str, tuple[float, int]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        session = onnxruntime.InferenceSession(
            str(files["ours"]), _options(threads, Path(scratch) / "profile"), providers=["CPUExecutionProvider"]
        )
        for _ in range(times):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"]].append(event["dur"] / 1e3)
    kinds["ours"] = {kind: (sum(each) / times, len(each) // times) for kind, each in found.items()}
    compiled = openvino.Core().compile_model(str(files["nncf"]), "CPU", _asked(threads) | {"PERF_COUNT": True})
    request, found = compiled.create_infer_request(), defaultdict(list)
    for _ in range(times):
        request.infer(feed)
        for each in request.profiling_info:
            if str(each.status).endswith("EXECUTED"):
                kind = each.exec_type.split("_")[-1] if each.exec_type.endswith(("_i8", "_u8", "_bf16")) else ""
                found[f"{each.node_type} {kind}".strip()].append(each.real_time.total_seconds() * 1e3)
    kinds["nncf"] = {kind: (sum(each) / times, len(each) // times) for kind, each in found.items()}
    told = [
        sorted(((ms, kind, count) for kind, (ms, count) in kinds[name].items()), reverse=True)[:10]
        for name in ("ours", "nncf")
    ]
    lines = ["| ONNX Runtime | nodes | ms | OpenVINO | nodes | ms |", "|---|---:|---:|---|---:|---:|"]
    for at in range(max(map(len, told))):
        cells = [
            (side[at][1], str(side[at][2]), f"{side[at][0]:.2f}") if at < len(side) else ("", "", "") for side in told
        ]
        lines.append(f"| {' | '.join((*cells[0], *cells[1]))} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", type=Path, required=True, help="a Python that has openvino and nncf")
    parser.add_argument("--shapes", nargs="+", choices=tuple(speed.SHAPES), default=["ViT-B/32"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="at batch 1; a third of them, 5 at least, for more")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to see whether it runs; prints only")
    given = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)
    asked = [str(given.peer), "-c", "import nncf, openvino; print(openvino.__path__[0]); print(nncf.__version__)"]
    place, version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-2:]
    sys.path.append(str(Path(place).parent))
    import openvino

    told = f"--shapes {' '.join(given.shapes)} --batches {' '.join(map(str, given.batches))} --rounds {given.rounds}"
    lines = [
        f"`python benchmarks/beside_openvino.py {told}`: nncf {version} and OpenVINO {openvino.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, {given.threads} threads each. Ratios by round with the lowest and the "
        "highest; below 1 is faster. Where a processor has bfloat16, OpenVINO computes in it what is not in 8 bits; "
        "the last column forbids it that. The profile is of the vision tower at batch 1.",
    ]
    for name in given.shapes:
        encoder = speed.shaped(speed.SHAPES[name], given.tiny)
        with tempfile.TemporaryDirectory() as scratch:
            files = quantized(encoder, Path(scratch), given.peer)
            head = "| Tower | Batch | float | ours / float | nncf / float | ours / nncf | ours / nncf in float32 |"
            lines += ["", f"### {name}, beside OpenVINO", "", head, "|---|---:|---:|---:|---:|---:|---:|"]
            for kind in encoder.towers:
                here = {variant: paths[kind] for variant, paths in files.items()}
                for size in given.batches:
                    (feed,) = speed.batches(encoder, kind, size, tokens=77)
                    rounds = given.rounds if size == 1 else max(5, given.rounds // 3)
                    lines.append(row(kind, size, in_turn(calls(here, feed, given.threads), rounds)))
                    print(lines[-1], flush=True)
            (feed,) = speed.batches(encoder, "vision", 1)
            here = {variant: paths["vision"] for variant, paths in files.items()}
            lines += ["", *spent(here, feed, given.threads)]
    print("\n".join(lines))
    if not given.tiny:
        write("\n".join(lines))


def write(text: str) -> None:
    """Put the text between the markers of the document."""
    old = speed.DOCUMENT.read_text("utf-8")
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    speed.DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", "utf-8")


if __name__ == "__main__":
    main()
