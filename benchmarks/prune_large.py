"""Time and memory of pruning a tower of ViT-L/14's width: half of the MLP neurons and half of the attention dims.

    python benchmarks/prune_large.py --layers 2 4 8 24 --images 16 --document docs/benchmarks.md

Weights are random: they make no difference to the time. Fewer layers than ViT-L's 24 show whether time is linear in the
depth. The tower is written by one process, pruned by another that never loads torch, and timed by a third; memory is
the peak of the second while a step runs, alone and with its children, over the bytes of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tables import Watched

from compress.models.external_data import save
from compress.models.onnx_towers import load_onnx
from compress.pipeline.evidence import environment
from compress.steps.prune import mlp, qk, vo
from compress.steps.step import Context
from compress.targets.graph.emitter import emit
from compress.targets.graph.fusion import fuse_products
from compress.targets.graph.session import open_session

BEGIN, END = "<!-- prune large: begin, written by benchmarks/prune_large.py -->", "<!-- prune large: end -->"
STEPS = (qk, vo, mlp)
TEXT = {
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 3,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
WIDTH = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "image_size": 224, "patch_size": 14}


def write(file: Path, layers: int) -> dict[str, Any]:
    """A random vision tower as ONNX; says how large it is."""
    import torch
    import transformers

    from compress.models.families.clip import FAMILY
    from compress.models.torch_export import export_towers

    torch.manual_seed(0)
    vision = {**WIDTH, "num_hidden_layers": layers}
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=768)
    towers, _ = export_towers(transformers.CLIPModel(config).eval(), FAMILY, normalize=True)
    save(towers["vision"].graph, file)
    return {"bytes": sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))}


def prune(file: Path, images: int, tokens: str) -> dict[str, Any]:
    """Prune the tower and write it beside the file; seconds and bytes at the peak of every step."""
    encoder = load_onnx({"vision": file}, {"kind": "plain"})
    found = []
    for method in STEPS:
        begun = time.perf_counter()
        told = {"tokens": tokens} if "tokens" in method.Spec.model_fields else {}
        spec = method.Spec(towers=("vision",), ratio=0.5, **told)
        with Watched() as watched:
            method.apply(encoder, spec, Context(lambda _: noise(images)))
        seconds = time.perf_counter() - begun
        found.append({"step": method.USE, "seconds": seconds, "own": watched.own, "together": watched.together})
    made = emit(encoder.towers["vision"])
    fuse_products(made)
    save(made, file.with_name("pruned.onnx"))
    return {"steps": found}


def compare(file: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of both towers in turn, round by round, by batch size."""
    encoder = load_onnx({"vision": file}, {"kind": "plain"})
    fuse_products(whole := emit(encoder.towers["vision"]))
    sessions = [open_session(whole), open_session(file.with_name("pruned.onnx"))]
    made: dict[str, Any] = {}
    for batch in (1, 8):
        feed = {"pixel_values": np.zeros((batch, 3, 224, 224), np.float32)}
        for at in range(rounds + 1):
            row = []
            for session in sessions:
                begun = time.perf_counter()
                session.run(None, feed)
                row.append(1e3 * (time.perf_counter() - begun))
            if at:  # the first round warms up
                made.setdefault(str(batch), []).append(row)
    return made


def noise(count: int, batch: int = 8) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """Images of noise."""
    rng = np.random.default_rng(0)
    for _ in range(count // batch):
        yield {"pixel_values": rng.normal(size=(batch, 3, 224, 224)).astype(np.float32)}


def line(layers: int, told: Mapping[str, Any]) -> str:
    """A row of the table."""
    size, steps = told["bytes"], told["steps"]
    seconds = " + ".join(f"{step['seconds']:.0f}" for step in steps)
    total = sum(step["seconds"] for step in steps)
    own, together = (", ".join(f"{step[name] / size:.2f}" for step in steps) for name in ("own", "together"))
    ratios = []
    for batch in ("1", "8"):
        pairs = [new / old for old, new in told[batch]]
        ratios.append(f"{np.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
    cells = f"{layers}", f"{size / 1e6:.0f} MB", seconds, f"{total:.0f}", f"{total / layers:.1f}"
    return f"| {' | '.join((*cells, own, together, *ratios))} |"


def main(arguments: Sequence[str]) -> None:
    """Print a row for every depth, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[24])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", choices=("by_gradient", "alike"), default="by_gradient")
    parser.add_argument("--document", type=Path)
    parser.add_argument("--part", choices=("write", "prune", "compare"), help="what a process of its own does")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args(arguments)
    if given.part:
        work = {
            "write": (write, given.layers[0]),
            "prune": (prune, given.images, given.tokens),
            "compare": (compare, given.rounds),
        }
        function, *options = work[given.part]
        print(json.dumps(function(given.file, *options)))
        return
    lines = [
        "| layers | model | seconds of qk + vo + mlp | together | a layer | peak of the process / model "
        "| with its children / model | latency, batch 1 | latency, batch 8 |",
        f"| {' | '.join(['---:'] * 9)} |",
    ]
    print("\n".join(lines), flush=True)
    for layers in given.layers:
        with tempfile.TemporaryDirectory() as scratch:
            told: dict[str, Any] = {}
            for part in ("write", "prune", "compare"):
                told |= _apart(part, Path(scratch) / "vision.onnx", layers, given)
        lines.append(line(layers, told))
        print(lines[-1], flush=True)
        if given.document:
            put(given.document, "\n".join((described(given), "", *lines)))


def _apart(part: str, file: Path, layers: int, given: argparse.Namespace) -> Any:
    options = ("--layers", str(layers), "--images", str(given.images), "--rounds", str(given.rounds))
    options += ("--tokens", given.tokens)
    command = [sys.executable, __file__, "--part", part, "--file", str(file), *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def described(given: argparse.Namespace) -> str:
    """How the table was made."""
    told = environment()
    packages = ", ".join(f"{name} {told['packages'][name]}" for name in ("compress", "onnxruntime", "numpy"))
    depths = " ".join(map(str, given.layers))
    return (
        f"### ViT-L/14's width\n\n`python benchmarks/prune_large.py --layers {depths} --images {given.images} "
        f"--tokens {given.tokens}` on "
        f"{told['cpu']}, {os.cpu_count()} cores, {packages}. Half of the MLP neurons, and half of the query, key and "
        "value dims go. Memory is resident, with the interpreter, looked at every 0.05 s during each step; pages that "
        "processes share count twice. Latency is of the export over float, paired, with the lowest and the highest."
    )


def put(document: Path, text: str) -> None:
    """Put the text between the markers of a document, at its end where there are none yet."""
    old = document.read_text("utf-8")
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
