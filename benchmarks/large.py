"""What quantizing models larger than memory takes: seconds, processor seconds and peak memory against parameters.

    python benchmarks/large.py make internvit-6b runs/large          # random bf16 shards of the real shapes
    python benchmarks/large.py run internvit-6b runs/large --kill    # quantize it, then again, killed half-way
    python benchmarks/large.py table runs/large                      # writes the table into docs/benchmarks.md

Weights are random: what is measured is time and memory, and nothing about accuracy. Memory is the resident memory of
all processes of a run together, sampled every 0.1 s, so pages that they share count twice. Seconds of the clock belong
to the machine and to what else ran on it; seconds of the processor, of all processes of the run, are printed beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from tables import resident

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- large: begin, written by benchmarks/large.py -->", "<!-- large: end -->"
UNGATED: Final = 4
"""How a run without gates ends: nobody can say that it passed."""

SHARD: Final = 1 << 30
"""Bytes of a shard, about."""

CLIP: Final = {"image_size": 224, "num_channels": 3}
SHAPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "vit-b-32": ("CLIPVisionModelWithProjection", {**CLIP, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 32, "projection_dim": 512}),
    "vit-l-14": ("CLIPVisionModelWithProjection", {**CLIP, "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768}),
    "vit-bigg-14": ("CLIPVisionModelWithProjection", {**CLIP, "hidden_size": 1664, "intermediate_size": 8192,
        "num_hidden_layers": 48, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 1280,
        "hidden_act": "gelu"}),
    "internvit-6b": ("InternVLVisionModel", {"hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45,
        "num_attention_heads": 25, "image_size": [448, 448], "patch_size": [14, 14], "use_qk_norm": True,
        "norm_type": "rms_norm", "attention_bias": False, "use_mean_pooling": False, "layer_norm_eps": 1e-6}),
}  # fmt: skip
RECIPE: Final = """version: 1
name: {name}
model: {{source: {folder}, streaming: true}}
{data}steps:
  - {step}
targets: [onnxruntime-cpu]
policy: none
reason: the weights are random
"""
DATA: Final = "data: {{calibration: {{source: scenes, split: calibration, samples: {samples}}}}}\n"


def make(shape: str, folder: Path) -> None:
    """Write a model folder with random bf16 shards, a weight at a time."""
    import transformers

    from compress.models.lazy_export import hollow

    architecture, told = SHAPES[shape]
    kind = getattr(transformers, architecture)
    config = kind.config_class(**told)
    model = hollow(lambda: kind(config))
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [architecture]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    size = told["image_size"] if isinstance(told["image_size"], int) else told["image_size"][0]
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    ).save_pretrained(folder)
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
    groups = list(_groups(shapes))
    pool = np.random.default_rng(0).standard_normal(1 << 24, np.float32)
    placed = {}
    for at, names in enumerate(groups, 1):
        file = f"model-{at:05d}-of-{len(groups):05d}.safetensors"
        _write(folder / file, {name: shapes[name] for name in names}, pool)
        placed |= dict.fromkeys(names, file)
    total = sum(2 * math.prod(each) for each in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _groups(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    held: list[str] = []
    for name in shapes:
        held.append(name)
        if sum(2 * math.prod(shapes[each]) for each in held) >= SHARD:
            yield held
            held = []
    if held:
        yield held


def _write(path: Path, shapes: dict[str, tuple[int, ...]], pool: np.ndarray[Any, Any]) -> None:
    """One safetensors file. Weights are slices of one pool of normal numbers, scaled as layers are."""
    told, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        told[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(told).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as opened:
        opened.write(struct.pack("<Q", len(header)) + header)
        for at, (name, shape) in enumerate(shapes.items()):
            scale = (
                1.0 if len(shape) == 1 and name.endswith("weight") else 0.02 if len(shape) == 1 else shape[-1] ** -0.5
            )
            base = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
            start, left = 7919 * (at + len(path.name)) % len(pool), math.prod(shape)
            while left:
                piece = pool[start : start + left]
                values = base + (0.1 if base else scale) * piece
                opened.write(values.astype(ml_dtypes.bfloat16).tobytes())
                left, start = left - len(piece), 0


@dataclass
class Watched:
    """A run of the command line under observation."""

    seconds: float = 0.0
    processor: float = 0.0
    peak: int = 0
    code: int = 0


def watch(words: Sequence[str], kill_at: int | None = None, checkpoint: Path | None = None) -> Watched:
    """Run a command, sampling the memory of its processes; SIGKILL to all once so many weights are sealed."""
    made, began = Watched(), time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)
    while (code := process.poll()) is None:
        made.peak = max(made.peak, resident(process.pid))
        if kill_at is not None and checkpoint and sum(1 for _ in checkpoint.glob("sealed*/*.json")) >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
            kill_at = None
        time.sleep(0.1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    made.seconds, made.code = time.monotonic() - began, code
    made.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return made


def run(shape: str, root: Path, step: str, samples: int, kill: bool) -> dict[str, Any]:
    """Quantize a made model; with `kill` a second time, killed half-way and resumed, and compare the bytes."""
    folder, name = root / shape, f"{shape}-{step.split(maxsplit=1)[0]}"
    recipe, output = root / f"{name}.yaml", root / f"{name}-artifacts"
    data = DATA.format(samples=samples) if samples else ""
    recipe.write_text(RECIPE.format(name=name, folder=folder.resolve(), data=data, step=f"{{use: quantize.{step}}}"))
    words = [sys.executable, "-m", "compress", "quantize", "--recipe", str(recipe), "--output"]
    shutil.rmtree(output, ignore_errors=True)
    first = watch([*words, str(output)])
    made = output / "ungated" / name
    if first.code != UNGATED or not made.is_dir():
        raise SystemExit(f"{name} ended with {first.code}")
    report = json.loads((made / "compress" / "gate_report.json").read_bytes())
    told: dict[str, Any] = {
        "shape": shape, "step": step, "samples": samples, "parameters": report["model"]["parameters"],
        "seconds": first.seconds, "processor": first.processor, "peak": first.peak,
        "bytes": sum(each["candidate_bytes"] for each in report["sizes"]), "digest": report["digest"],
        "blockwise": report["blockwise"], "machine": _machine(),
    }  # fmt: skip
    if kill:
        weights = len(report["steps"][0]["rows"])
        shutil.rmtree(output)  # there may not be room for two
        again = output.with_name(f"{output.name}-killed")
        shutil.rmtree(again, ignore_errors=True)
        dead = watch([*words, str(again)], weights // 2, again / "staging" / f".{name}.checkpoint")
        done = watch([*words, str(again), "--resume"])
        report = json.loads((again / "ungated" / name / "compress" / "gate_report.json").read_bytes())
        told |= {
            "killed": {"code": dead.code, "after": dead.seconds, "weights": weights // 2, "of": weights},
            "resumed": {"code": done.code, "seconds": done.seconds, "processor": done.processor, "peak": done.peak},
            "same_bytes": report["digest"] == told["digest"],
        }
        shutil.rmtree(again)
    (root / f"{name}.json").write_text(json.dumps(told, indent=1))
    return told


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) / 2**20
    return f"{model}, {os.cpu_count()} cores, {total:.0f} GiB, {platform.system()}"


def table(root: Path) -> str:
    """The table of every result below a folder, with a line through each step's processor seconds."""
    results = sorted((json.loads(path.read_bytes()) for path in root.glob("*.json")), key=_order)
    lines = [
        f"`python benchmarks/large.py` on {results[0]['machine']}. Random bf16 weights of the real shapes, no gates.",
        "",
        "| Shape | Parameters | Step | Minutes | Processor | Peak memory | Float32 | Artifact | Killed and resumed |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in results:
        resumed = "not tried"
        if "same_bytes" in each:
            bytes_ = "same bytes" if each["same_bytes"] else "other bytes"
            resumed = f"{bytes_}; killed at {each['killed']['weights']} of {each['killed']['of']} weights"
        count = each["parameters"]
        lines.append(
            f"| {each['shape']} | {count / 1e9:.2f} B | {each['step']} | {each['seconds'] / 60:.1f} | "
            f"{each['processor']:.0f} s | {each['peak'] / 2**30:.2f} GiB | {4 * count / 2**30:.2f} GiB | "
            f"{each['bytes'] / 2**30:.2f} GiB | {resumed} |"
        )
    for step in dict.fromkeys(each["step"] for each in results):
        own = [each for each in results if each["step"] == step]
        if len({each["parameters"] for each in own}) > 2:
            lines += ["", _fit(step, own)]
    return "\n".join(lines)


def _order(each: dict[str, Any]) -> tuple[str, int]:
    return each["step"], each["parameters"]


def _fit(step: str, own: Sequence[dict[str, Any]]) -> str:
    """Least squares through processor seconds, each point weighed by its own size so that small ones count too."""
    x = np.array([each["parameters"] for each in own]) / 1e9
    y = np.array([each["processor"] for each in own])
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    off = np.abs(start + slope * x - y) / y
    return (
        f"`{step}`: processor seconds = {start:.0f} + {slope:.0f} per billion parameters, "
        f"{len(own)} shapes, at most {100 * off.max():.0f} % off."
    )


def write_page(text: str) -> None:
    """Put the table between its marks, or at the end of the page."""
    page = PAGE.read_text()
    if BEGIN not in page:
        page += f"\n## Models larger than memory\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    for word in ("make", "run"):
        each = what.add_parser(word)
        each.add_argument("shape", choices=SHAPES)
        each.add_argument("root", type=Path)
    what.choices["run"].add_argument("--step", default="int4_rtn", help="a step without its options")
    what.choices["run"].add_argument("--samples", type=int, default=0, help="calibration scenes, for steps with data")
    what.choices["run"].add_argument("--kill", action="store_true", help="run it again, killed once and resumed")
    what.add_parser("table").add_argument("root", type=Path)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.shape, asked.root / asked.shape)
    elif asked.what == "run":
        print(json.dumps(run(asked.shape, asked.root, asked.step, asked.samples, asked.kill), indent=1))
    else:
        text = table(asked.root)
        write_page(text)
        print(text)


if __name__ == "__main__":
    main()
