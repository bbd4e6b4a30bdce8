"""Time and memory of pruning a tower of ViT-L/14's width: half of the MLP neurons and half of the attention dims.

    python benchmarks/prune_large.py --layers 2 4 --images 16

Weights are random: they make no difference to the time. Fewer layers than ViT-L's 24 show whether time is linear in the
depth. Memory is the peak of this process while the steps run, above nothing, and that of its largest child.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from compress.models.external_data import save
from compress.models.families.clip import FAMILY
from compress.models.onnx_towers import load_onnx
from compress.models.torch_export import export_towers
from compress.steps.prune import mlp, qk, vo
from compress.steps.step import Context
from compress.targets.graph.session import open_session

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


def written(layers: int, path: Path) -> Path:
    """A random vision tower as ONNX."""
    torch.manual_seed(0)
    vision = {**WIDTH, "num_hidden_layers": layers}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=768)
    ).eval()
    towers, _ = export_towers(model, FAMILY, normalize=True)
    save(towers["vision"].graph, path)
    return path


def images(count: int, batch: int = 8) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """Noise."""
    rng = np.random.default_rng(0)
    for _ in range(count // batch):
        yield {"pixel_values": rng.normal(size=(batch, 3, 224, 224)).astype(np.float32)}


def peak() -> float:
    """Peak resident memory of this process since the last call of `reset`, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def reset() -> None:
    """Let the peak begin again."""
    Path("/proc/self/clear_refs").write_text("5")


def main(arguments: Sequence[str]) -> None:
    """Print a row for every depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[24])
    parser.add_argument("--images", type=int, default=16)
    given = parser.parse_args(arguments)
    print("| layers | model | step | seconds | peak here / model | largest child / model | batch 1 | batch 8 |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for layers in given.layers:
        with tempfile.TemporaryDirectory() as scratch:
            file = written(layers, Path(scratch) / "vision.onnx")
            size = file.stat().st_size
            encoder = load_onnx({"vision": file}, {"kind": "plain"})
            before = open_session(file)
            context = Context(lambda _: images(given.images))
            for method in (qk, vo, mlp):
                reset()
                start = time.perf_counter()
                method.apply(encoder, method.Spec(towers=("vision",), ratio=0.5), context)
                seconds = time.perf_counter() - start
                child = 1024.0 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                cells = f"{seconds:.0f} | {peak() / size:.2f} | {child / size:.2f}"
                print(f"| {layers} | {size / 1e6:.0f} MB | {method.USE} | {cells} | | |", flush=True)
            after = open_session(encoder.towers["vision"].graph)
            ratios = []
            for batch in (1, 8):
                feed = {"pixel_values": np.zeros((batch, 3, 224, 224), np.float32)}
                timed = {}
                for _ in range(5):
                    for name, session in (("before", before), ("after", after)):
                        start = time.perf_counter()
                        session.run(None, feed)
                        timed.setdefault(name, []).append(time.perf_counter() - start)
                pairs = np.array(timed["after"]) / np.array(timed["before"])
                ratios.append(f"{np.median(pairs[1:]):.2f}")
            print(f"| {layers} | | all | | | | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
