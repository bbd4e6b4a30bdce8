"""Speed and size of compressed towers beside the float reference and beside ONNX Runtime's own dynamic quantization.

    python benchmarks/speed.py                 # ViT-B/32 shapes and pocket-clip; rewrites docs/benchmarks.md
    python benchmarks/speed.py --tiny          # a few seconds, prints only

All variants of a model are timed in turn, in one process, on the same inputs, so that a busy machine slows all of
them; what is reported is the ratio to the float reference, pair by pair. Weights are random where a model is only a
shape: they make no difference to speed. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.bench.latency import Plan, in_turn, spread
from compress.models.loading import load as load_named
from compress.models.tower import Encoder
from compress.pipeline.evidence import environment
from compress.pipeline.measurement import model_bytes
from compress.recipe.sources import NamedModel
from compress.report import wording
from compress.steps.quantize import int4_rtn, int8_static
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- speed: begin, written by benchmarks/speed.py -->", "<!-- speed: end -->"
HEAD = (
    "# Benchmarks\n\nSpeed belongs to a machine: run `make bench` on yours. These tables name the one they come from.\n"
)
VARIANTS = ("int8_static", "int4_rtn", "quantize_dynamic")


@dataclass(frozen=True)
class Measured:
    """One tower at one batch size: for each variant the milliseconds and the ratios to float, round by round."""

    tower: str
    batch: int
    milliseconds: Mapping[str, Sequence[float]]

    def ratio(self, variant: str) -> str:
        """`0.53 (0.51 to 0.56)`: the median of the pairs, the lowest and the highest."""
        pairs = zip(self.milliseconds["float"], self.milliseconds[variant], strict=True)
        score = spread([new / old for old, new in pairs])
        return f"{score.value:.2f}" if score.low is None else f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"


def vit_b_32(tiny: bool) -> Encoder:
    """A CLIP of ViT-B/32 shape (what `CLIPConfig` describes by default) with random weights, as float towers."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from compress.models.families.clip import FAMILY
    from compress.models.torch_export import export_towers

    torch.manual_seed(0)
    config = CLIPConfig()
    if tiny:
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        ids = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
        config = CLIPConfig(text_config={**small, **ids}, vision_config={**small, "image_size": 64})
    model = CLIPModel(config).eval()
    towers, difference = export_towers(model, FAMILY, normalize=True)
    side, length = config.vision_config.image_size, config.text_config.max_position_embeddings
    preprocess = {
        "kind": "plain",
        "image": {"size": (side, side)},
        "text": {"tokenizer": "bytes", "length": length},
    }
    parameters = sum(weight.numel() for weight in model.parameters())
    return Encoder("random", None, "CLIPModel", parameters, towers, {}, preprocess, 100.0, True, difference)


def variants(encoder: Encoder, folder: Path) -> dict[str, Path]:
    """A folder of the float towers, and one for each way to compress them."""
    made = {name: folder / name for name in ("float", *VARIANTS)}
    for path in made.values():
        path.mkdir(parents=True)
    onnxruntime_cpu.export(encoder, made["float"])
    for name, method, options in (
        ("int8_static", int8_static, {"range": "percentile", "include": ("patch_embed", *int8_static.DEFAULT)}),
        ("int4_rtn", int4_rtn, {"scale_search": "absmax"}),  # other scales would be as fast
    ):
        treated = fresh(encoder)
        method.apply(treated, method.Spec(**options), Context(lambda kind: noise(encoder, kind)))
        onnxruntime_cpu.export(treated, made[name])
    dynamic(made["float"], made["quantize_dynamic"])
    return made


def fresh(encoder: Encoder) -> Encoder:
    """The same encoder with nothing decided yet."""
    return replace(encoder, towers={kind: replace(tower, treatments={}) for kind, tower in encoder.towers.items()})


def noise(encoder: Encoder, kind: str) -> Iterator[dict[str, NDArray[np.generic]]]:
    """One batch of inputs of the right shape: what the scales are does not matter here."""
    rng = np.random.default_rng(0)
    tower = encoder.towers[kind]
    if kind == "vision":
        (value,) = tower.graph.graph.input
        channels, height, width = (each.dim_value for each in value.type.tensor_type.shape.dim[1:])
        yield {tower.inputs[0]: rng.normal(size=(2, channels, height, width)).astype(np.float32)}
    else:
        ids = rng.integers(4, 100, (2, 12))
        yield dict(zip(tower.inputs, (ids, np.ones_like(ids)), strict=True))


def dynamic(source: Path, target: Path) -> None:
    """The float folder with every tower put through ONNX Runtime's `quantize_dynamic`, its defaults unchanged."""
    from onnxruntime.quantization import quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends its own preprocessing, which changes no product
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in (target / "onnx").glob("*.onnx"):
        quantize_dynamic(source / "onnx" / path.name, path)


def measure(folders: Mapping[str, Path], plan: Plan) -> list[Measured]:
    """All variants in turn."""
    rows = in_turn(list(folders.values()), plan)
    return [
        Measured(row["tower"], row["batch"], dict(zip(folders, zip(*row["times"], strict=True), strict=True)))
        for row in rows
    ]


def tables(name: str, folders: Mapping[str, Path], measured: Sequence[Measured]) -> str:
    """The sizes and times of one model in Markdown."""
    heads = ("Tower", "Batch", "float", *(f"{variant} / float" for variant in VARIANTS))
    lines = [f"### {name}", "", *_head(heads)]
    for row in measured:
        cells = row.tower, row.batch, f"{median(row.milliseconds['float']):.2f} ms", *map(row.ratio, VARIANTS)
        lines.append(_line(cells))
    bytes_ = {variant: sum(model_bytes(path).values()) for variant, path in folders.items()}
    ratios = (f"{wording.size(bytes_[each])} ({bytes_[each] / bytes_['float']:.2f})" for each in VARIANTS)
    lines += ["", *_head(("Both towers", "float", *VARIANTS)), _line(("size", wording.size(bytes_["float"]), *ratios))]
    return "\n".join(lines)


def _head(cells: Sequence[object]) -> tuple[str, str]:
    return _line(cells), _line(["---", *["---:" for _ in cells[1:]]])


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def described(plan: Plan) -> str:
    """The machine, the versions and the command, so that the numbers can be placed and made again."""
    told: dict[str, Any] = environment()
    packages = ", ".join(f"{name} {told['packages'][name]}" for name in ("compress", "onnxruntime", "torch", "numpy"))
    threads = plan.threads or len(os.sched_getaffinity(0))
    batches = " ".join(map(str, plan.batches))
    asked = f"--batches {batches} --pairs {plan.pairs} --repeats {plan.repeats} --threads {plan.threads}"
    return (
        f"`python benchmarks/speed.py {asked}` on {told['cpu']}, {threads} threads of {os.cpu_count()} cores, "
        f"{told['platform']}, Python {told['python']}, {packages}.\n\n"
        f"Times are of the session alone, medians of {plan.pairs} rounds of {plan.repeats} calls; ratios are paired by "
        "round, with the lowest and the highest. Below 1 is faster than float. ViT-B/32 has random weights and its "
        "text tower always takes 77 tokens; pocket-clip takes texts as they are. int8_static takes the patch embedding "
        "with the products; it and int4_rtn leave embedding tables in float, as their defaults do; quantize_dynamic "
        "rounds them as well."
    )


def write(document: Path, text: str) -> None:
    """Put the text between the markers of a document, which is made where it is not there."""
    old = document.read_text("utf-8") if document.is_file() else f"{HEAD}\n{BEGIN}\n{END}\n"
    if old.count(BEGIN) != 1 or END not in old.split(BEGIN)[1]:
        sys.exit(f"{document}: the lines {BEGIN} and {END} must be there once, in this order")
    before, rest = old.split(BEGIN)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", "utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="batch sizes")
    parser.add_argument("--pairs", type=int, default=7, help="rounds of each row")
    parser.add_argument("--repeats", type=int, default=3, help="calls in a round; their median counts")
    parser.add_argument("--threads", type=int, default=0, help="threads of the runtime; 0: as many as there are cores")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to see whether it runs; prints only")
    parser.add_argument("--output", type=Path, help=f"document to write; default {DOCUMENT.name}, nothing with --tiny")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    given = arguments(argv)
    plan = Plan(tuple(given.batches), given.pairs, given.repeats, warm_up=2, threads=given.threads)
    models: dict[str, Callable[[], Encoder]] = {
        "ViT-B/32" + (" (tiny)" if given.tiny else ""): lambda: vit_b_32(given.tiny),
        "pocket-clip": lambda: load_named(NamedModel(source="pocket-clip")),
    }
    parts = [described(plan)]
    with tempfile.TemporaryDirectory() as scratch:
        for at, (name, make) in enumerate(models.items()):
            folders = variants(make(), Path(scratch) / str(at))
            parts.append(tables(name, folders, measure(folders, plan)))
            print(parts[-1], flush=True)
    document = given.output or (None if given.tiny else DOCUMENT)
    if document is not None:
        write(document, "\n\n".join(parts))


if __name__ == "__main__":
    main()
