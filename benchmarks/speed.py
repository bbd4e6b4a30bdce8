"""Speed and size of compressed towers beside the float reference and beside ONNX Runtime's own dynamic quantization.

    python benchmarks/speed.py                    # all shapes and pocket-clip; rewrites docs/benchmarks.md
    python benchmarks/speed.py --only ViT-B/32    # the others keep the tables of their last run
    python benchmarks/speed.py --tiny             # a few seconds, prints only

All variants of a model are timed in turn, in one process, on the same inputs, so that a busy machine slows all of
them; what is reported is the ratio to the float reference, pair by pair. Weights are random where a model is only a
shape: they make no difference to speed. Nothing is downloaded. `beside_openvino.py` times OpenVINO's int8.
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
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.bench.latency import Plan, in_turn, spread
from compress.data import runtime
from compress.models.external_data import save
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
VARIANTS = ("int8_static", "int4_rtn", "quantize_dynamic", "quantize_static")
OURS, PEER, EXPORTED = "int8_static", "quantize_dynamic", "exported"


@dataclass(frozen=True)
class Measured:
    """One tower at one batch size: for each variant the milliseconds and the ratios to float, round by round."""

    tower: str
    batch: int
    milliseconds: Mapping[str, Sequence[float]]

    def ratio(self, variant: str, old: str = "float") -> str:
        """`0.53 (0.51 to 0.56)`: the median of the pairs, the lowest and the highest."""
        pairs = zip(self.milliseconds[old], self.milliseconds[variant], strict=True)
        score = spread([after / before for before, after in pairs])
        return f"{score.value:.2f}" if score.low is None else f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"


@dataclass(frozen=True)
class Shape:
    """A CLIP's vision and text towers: width, MLP width, blocks and heads of each, and the patches of an image."""

    vision: tuple[int, int, int, int]
    text: tuple[int, int, int, int]
    patch: int
    projection: int
    rounds: tuple[int, int]

    def config(self) -> dict[str, Any]:
        """What CLIPConfig takes."""
        told = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        vision = {**dict(zip(told, self.vision, strict=True)), "patch_size": self.patch}
        text = {**dict(zip(told, self.text, strict=True)), **SPECIAL}
        return {
            "vision_config": {**vision, "projection_dim": self.projection},
            "text_config": {**text, "projection_dim": self.projection},
            "projection_dim": self.projection,
        }


POCKET = "pocket-clip"
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
"""Ids that texts of bytes are between (`runtime.PlainText`)."""
TEXT = (512, 2048, 12, 8)
SHAPES: Mapping[str, Shape] = {
    "ViT-B/32": Shape((768, 3072, 12, 12), TEXT, 32, 512, (7, 3)),
    "ViT-B/16": Shape((768, 3072, 12, 12), TEXT, 16, 512, (5, 1)),
    "ViT-L/14": Shape((1024, 4096, 24, 16), (768, 3072, 12, 12), 14, 768, (3, 1)),
}
"""Shapes of OpenAI's CLIP models (arXiv:2103.00020), and how often each is timed: rounds, and calls in a round."""


def shaped(shape: Shape, tiny: bool) -> Encoder:
    """A CLIP of a shape with random weights, as float towers."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from compress.models.families.clip import FAMILY
    from compress.models.torch_export import export_towers

    torch.manual_seed(0)
    config = CLIPConfig(**shape.config())
    if tiny:
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = CLIPConfig(
            text_config={**small, **SPECIAL, "vocab_size": 300}, vision_config={**small, "image_size": 64}
        )
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
    made = {name: folder / name for name in ("float", *VARIANTS, EXPORTED)}
    for path in made.values():
        path.mkdir(parents=True)
    onnxruntime_cpu.export(encoder, made["float"])
    for kind, path in towers_of(made["float"]).items():  # other tools start from what torch exports
        save(encoder.towers[kind].graph, folder / path.name)
    for name, method, options in (
        ("int8_static", int8_static, {"range": "percentile", "include": ("patch_embed", *int8_static.DEFAULT)}),
        ("int4_rtn", int4_rtn, {"scale_search": "absmax"}),  # other scales would be as fast
    ):
        treated = fresh(encoder)
        method.apply(treated, method.Spec(**options), Context(lambda kind: noise(encoder, kind)))
        onnxruntime_cpu.export(treated, made[name])
    for name, quantize in (("quantize_dynamic", dynamic), ("quantize_static", static), (EXPORTED, unchanged)):
        shutil.copytree(made["float"], made[name], dirs_exist_ok=True)
        for kind, path in towers_of(made["float"]).items():
            quantize(folder / path.name, made[name] / "onnx" / path.name, batches(encoder, kind, 2))
    return made


def fresh(encoder: Encoder) -> Encoder:
    """The same encoder with nothing decided yet."""
    return replace(encoder, towers={kind: replace(tower, treatments={}) for kind, tower in encoder.towers.items()})


def noise(encoder: Encoder, kind: str) -> Iterator[dict[str, NDArray[np.generic]]]:
    """One batch of inputs of the right shape: what the scales are does not matter here."""
    yield from batches(encoder, kind, 2)


def batches(encoder: Encoder, kind: str, size: int, tokens: int = 12) -> list[dict[str, NDArray[np.generic]]]:
    """One batch of random inputs of a tower; texts end at their last token."""
    rng = np.random.default_rng(0)
    tower = encoder.towers[kind]
    if kind == "vision":
        (value,) = tower.graph.graph.input
        channels, height, width = (each.dim_value for each in value.type.tensor_type.shape.dim[1:])
        return [{tower.inputs[0]: rng.normal(size=(size, channels, height, width)).astype(np.float32)}]
    ids = rng.integers(4, 100, (size, tokens))
    ids[:, -1] = SPECIAL["eos_token_id"]
    return [dict(zip(tower.inputs, (ids, np.ones_like(ids)), strict=True))]


def dynamic(source: Path, target: Path, _: object) -> None:
    """A tower put through ONNX Runtime's `quantize_dynamic`, its defaults unchanged."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def unchanged(source: Path, target: Path, _: object) -> None:
    """A tower as torch exports it."""
    shutil.copyfile(source, target)


def static(source: Path, target: Path, feeds: Sequence[Mapping[str, Any]]) -> None:
    """A tower put through ONNX Runtime's `quantize_static`, its defaults unchanged."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Iterator[Mapping[str, Any]]) -> None:
            self.feeds = feeds

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.feeds, None)

    quantize_static(source, target, Reader(iter(feeds)))


def towers_of(folder: Path) -> dict[str, Path]:
    """The ONNX files of a folder by tower."""
    held = runtime.read(folder).towers
    return {kind: folder / each.file for kind in ("vision", "text") if (each := getattr(held, kind)) is not None}


def measure(folders: Mapping[str, Path], plan: Plan) -> list[Measured]:
    """All variants in turn: images and captions, then texts of as many tokens as there is room for."""
    long = replace(plan, long=True, towers=("text",))
    told = [(row["tower"], row) for row in in_turn(list(folders.values()), plan)]
    told += [("text, long", row) for row in in_turn(list(folders.values()), long)]
    return [
        Measured(name, row["batch"], dict(zip(folders, zip(*row["times"], strict=True), strict=True)))
        for name, row in told
    ]


def tables(name: str, folders: Mapping[str, Path], measured: Sequence[Measured]) -> str:
    """The sizes and times of one model in Markdown."""
    beside = (f"{other} / {OURS}" for other in (PEER, EXPORTED))
    heads = ("Tower", "Batch", "float", *(f"{variant} / float" for variant in VARIANTS), *beside)
    lines = [f"### {name}", "", *_head(heads)]
    for row in measured:
        cells = (
            row.tower,
            row.batch,
            f"{median(row.milliseconds['float']):.2f} ms",
            *map(row.ratio, VARIANTS),
            row.ratio(PEER, OURS),
            row.ratio(EXPORTED, OURS),
        )
        lines.append(_line(cells))
    bytes_ = {variant: sum(model_bytes(path).values()) for variant, path in folders.items()}
    ratios = (f"{wording.size(bytes_[each])} ({bytes_[each] / bytes_['float']:.2f})" for each in VARIANTS)
    lines += ["", *_head(("Both towers", "float", *VARIANTS)), _line(("size", wording.size(bytes_["float"]), *ratios))]
    return "\n".join(lines)


def _head(cells: Sequence[object]) -> tuple[str, str]:
    return _line(cells), _line(["---", *["---:" for _ in cells[1:]]])


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def described(batches: Sequence[int], threads: int) -> str:
    """The machine, the versions and the command, so that the numbers can be placed and made again."""
    told: dict[str, Any] = environment()
    packages = ", ".join(f"{name} {told['packages'][name]}" for name in ("compress", "onnxruntime", "torch", "numpy"))
    asked = f"--batches {' '.join(map(str, batches))} --threads {threads}"
    return (
        f"`python benchmarks/speed.py {asked}` on {told['cpu']}, {threads or len(os.sched_getaffinity(0))} threads of "
        f"{os.cpu_count()} cores, {told['platform']}, Python {told['python']}, {packages}.\n\n"
        "Times are of the session alone, medians of rounds; ratios are paired by round, with the lowest and the "
        "highest. Below 1 is faster than float. ViT shapes have random weights. Texts are captions of 11 to 40 bytes, "
        "a token each, which are filled up to 77 tokens for ViT shapes, as CLIP's own tokenizer does, and not at all "
        "for pocket-clip; long texts are as many tokens as there is room for, each of which counts. int8_static takes "
        "the patch embedding with the products; it and int4_rtn leave embedding tables in float, as their defaults do; "
        "quantize_dynamic rounds them as well. quantize_dynamic and quantize_static start from what torch exports "
        "(`exported`, in float); float is the same graph as written for this target: attention is one operator, the "
        "last block computes the pooled token, and texts are cut where the longest ends. Threads of a session rest "
        "between its runs, as those of the others are at work then."
    )


def kept(document: Path) -> dict[str, str]:
    """The tables that a document holds by model."""
    text = document.read_text("utf-8") if document.is_file() else ""
    if BEGIN not in text:
        return {}
    parts = text.split(BEGIN)[1].split(END)[0].split("\n### ")[1:]
    return {part.splitlines()[0]: f"### {part.strip()}" for part in parts}


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
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="batch sizes")
    parser.add_argument("--only", choices=(*SHAPES, POCKET), action="append", help="time this model")
    parser.add_argument("--threads", type=int, default=0, help="threads of the runtime; 0: as many as there are cores")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to see whether it runs; prints only")
    parser.add_argument("--output", type=Path, help=f"document to write; default {DOCUMENT.name}, nothing with --tiny")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    given = arguments(argv)
    logging.getLogger().setLevel(logging.ERROR)
    models: dict[str, tuple[Callable[[], Encoder], tuple[int, int]]] = {
        name: (partial(shaped, shape, given.tiny), (1, 1) if given.tiny else shape.rounds)
        for name, shape in SHAPES.items()
    }
    models[POCKET] = lambda: load_named(NamedModel(source=POCKET)), (1, 1) if given.tiny else (7, 3)
    document = given.output or (None if given.tiny else DOCUMENT)
    made = kept(document) if document is not None else {}
    for name in given.only or models:
        make, (pairs, repeats) = models[name]
        plan = Plan(tuple(given.batches), pairs, repeats, warm_up=1, threads=given.threads)
        with tempfile.TemporaryDirectory() as scratch:
            folders = variants(make(), Path(scratch))
            heading = f"{name}\n\nMedians of {pairs} rounds of {repeats} calls, or of as many as take 20 ms."
            made[name] = tables(heading, folders, measure(folders, plan))
        print(made[name], flush=True)
        if document is not None:
            told = [made[each] for each in models if each in made]
            write(document, "\n\n".join([described(given.batches, given.threads), *told]))


if __name__ == "__main__":
    main()
