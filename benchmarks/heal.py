"""What a short training brings back of pocket-clip after pruning and after plain 4-bit weights.

    python benchmarks/heal.py                     # everything; hours on two cores; rewrites docs/benchmarks.md
    python benchmarks/heal.py --only healed       # one row again, the others of the document stay: see --list
    python benchmarks/heal.py --steps 4 --samples 64 --items 40 --only healed --print    # a look whether it runs

Half of all MLP neurons go, alone or with their blocks, shared out over layers (`prune.auto`); then the student trains
towards the whole model on renderings that are neither calibration nor release data. The first rows have one student: a
split searched by how far the scores of reading move on development items, and what is left fitted to 8,192
scenes. They train on text for the most part, most of it small. The split of the others was searched by cosines and
fitted to 1,024 scenes, and they train on scenes of all kinds, where their names say nothing else. Integers train 600
steps by AdamW at a rate of their own. What was pruned is kept below --cache, as is what the teacher says: the first row
of a kind of data pays for all. CPU minutes are those of the training, of this process and its children. Scores are of
the release split, as shares of the reference's, with 95 % by the delta method; the last interval is that of the paired
difference in reading, by the normal approximation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import prune_pocket
from prune_curve import BY_LAYER, JUDGED
from tables import Shown, cpu_seconds, merge

from compress.core.progress import Silent
from compress.data.stored import stored
from compress.data.training import TrainingSet
from compress.evals import suite
from compress.gates.outcomes import Outcomes
from compress.models.loading import load as load_named
from compress.models.tower import Encoder, copied
from compress.pipeline import model, provenance
from compress.pipeline.calibration import Calibration
from compress.recipe.sources import DataSource, NamedModel
from compress.recipe.training import Feeding
from compress.steps.distill import heal, qad
from compress.steps.prune import auto
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu

BEGIN, END = "<!-- heal: begin, written by benchmarks/heal.py -->", "<!-- heal: end -->"
TASKS = ("reading", "zero_shot", "retrieval")
SLICES = ("6-8", "9-12", "13-18", "19-24")
LEVELS = (0.25, 0.5, 0.75, 0.875)
GOAL_SLICE, GOAL_ALL = 0.97, 0.98


ADAMW = {"optimizer": "adamw", "rate": 1e-3, "steps": 1400}
SMALL: dict[str, Any] = {"rendered": 0.6, "rendered_px": ("6-8", "9-12")}
"""Two thirds of what is trained on is text, most of it small: what a student of few neurons forgets first."""
SMALL_SAMPLES = 6144


@dataclass(frozen=True)
class Row:
    """One training: options of the step, what of the data is used, and what is done to the model before."""

    options: dict[str, Any] = field(default_factory=dict)
    feeding: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    before: str = "pruned"
    trained: bool = True


LIKE = {"before": "scored"}
ROWS = {
    "pruned": Row(**LIKE, trained=False),
    "healed": Row({"rate": 1e-3}, SMALL, **LIKE),
    "from random weights": Row({"rate": 2e-3, "start": "random"}, SMALL, **LIKE),
    "images only": Row({"rate": 1e-3}, {**SMALL, "use": "images"}, **LIKE),
    "captions only": Row({"rate": 1e-3}, {**SMALL, "use": "captions"}, **LIKE),
    "pruned, split by cosines": Row(trained=False),
    "healed, split by cosines, all sizes": Row(),
    "healed, split by cosines, reading alone": Row(kind="reading"),
    "pruned, split by cosines, fitted to 8,192 scenes": Row(before="fitted", trained=False),
    "pruned, split by gates": Row(before="judged", trained=False),
    "AdamW, split by cosines": Row(ADAMW),
    "AdamW, fitted to 8,192 scenes": Row({**ADAMW, "steps": 1200}, before="fitted"),
    "AdamW, split by gates": Row({**ADAMW, "steps": 1200}, before="judged"),
    "AdamW, features": Row({**ADAMW, "losses": {"hidden": 0}}),
    "AdamW, features + hidden + bank": Row({**ADAMW, "losses": {"bank": 1}}),
    "AdamW, features + hidden + affinity": Row({**ADAMW, "losses": {"affinity": 1}}),
    "int4, one scale a tensor": Row(before="int4", trained=False),
    "int4 after qad": Row({"steps": 600, "rate": 1.5e-4, "losses": {"features": 1, "hidden": 0}}, before="int4"),
}


@dataclass(frozen=True)
class Share:
    """A student's score as a share of the reference's, and half of its 95 % interval (delta method, paired)."""

    value: float
    half: float

    @classmethod
    def of(cls, old: np.ndarray, new: np.ndarray) -> Share:
        """Of the same items, right or wrong."""
        value = new.mean() / old.mean()
        spread = (new - value * old).std(ddof=1) / old.mean()
        return cls(float(value), float(1.96 * spread / np.sqrt(len(old))))


@dataclass(frozen=True)
class Scored:
    """Shares of the reference's score: reading by slice, the average of all metrics; and the lost points of reading."""

    slices: tuple[Share, ...]
    reading: float
    others: dict[str, float]
    lost: tuple[float, float]

    @property
    def average(self) -> float:
        """Of reading, zero-shot and both directions of retrieval."""
        return float(np.mean([self.reading, *self.others.values()]))

    @property
    def verdict(self) -> str:
        """Whether the goals are met."""
        met = min(each.value for each in self.slices) >= GOAL_SLICE and self.average >= GOAL_ALL
        return "met" if met else "missed"


SCENES = {"pruned": 1024, "int4": 1024, "fitted": 8192, "judged": 8192, "scored": 8192}
"""Calibration samples by what is done before, half of them of reading alone."""


TEXT = 0.25
"""How much of what the text tower loses counts where training follows, which brings most of that back."""


def before_healing(distance: dict[str, float]) -> float:
    """What a split is searched by that is going to be healed."""
    return distance["vision"] + TEXT * distance["text"]


@cache
def damaged(how: str, reference: Path, kept: Path) -> Encoder:
    """What is to be healed; pruned towers are kept, for their split takes long to find."""
    made = kept / f"damaged-{how}"
    if made.exists():
        return load_named(NamedModel(source=str(made)), offline=True)
    encoder = load_named(NamedModel(source="pocket-clip"), offline=True)
    half = SCENES[how] // 2
    halves = [DataSource(source="scenes", samples=half), DataSource(source="scenes", samples=half, kind="reading")]
    feeds = [Calibration(provenance.items(each, (), Silent()), reference).feeds() for each in halves]
    context = Context(lambda kind: (batch for each in feeds for batch in each(kind)))
    if how != "int4":
        told = {"budget": {"neurons": 0.5}, "methods": ("depth", "mlp"), "unit": "layer"}
        told |= {"loss": "cosine", "levels": LEVELS}
        if how in ("judged", "scored"):
            with tempfile.TemporaryDirectory() as scratch:
                judge = prune_pocket.bench(2 * prune_pocket.BATCH, JUDGED, "development", Path(scratch))
            context = replace(context, loss=judge.loss)
            told |= BY_LAYER["ours, by layer, by gates"]
        if how == "scored":
            context = replace(context, loss=lambda made: before_healing(judge.distance(made)))
            told |= {"levels": tuple(eighth / 8 for eighth in range(1, 8)), "tried_on": 256}
        report = auto.apply(encoder, auto.Spec.model_validate(told), context)
        shutil.rmtree(kept / "unfinished", ignore_errors=True)  # of a run that was stopped
        onnxruntime_cpu.export(encoder, kept / "unfinished")
        (kept / "unfinished").rename(made)
    else:
        report = int4_rtn.apply(encoder, int4_rtn.Spec(scale_per="tensor", block=128), context)
    print(report.summary, file=sys.stderr, flush=True)
    return encoder


def scored(reference: Path, encoder: Encoder, items: int) -> Scored:
    """What the exported files score on the release split."""
    with tempfile.TemporaryDirectory() as made:
        onnxruntime_cpu.export(encoder, Path(made))
        asked = SimpleNamespace(split="release", items=items, items_per_slice=None, task=None)
        policy = SimpleNamespace(tasks=dict.fromkeys(TASKS, asked), gates=())
        found = suite.measure(policy, reference, Path(made), suite.Options())
    reading = found["reading.accuracy"]
    assert isinstance(reading, Outcomes)
    old, new = (np.asarray(each, np.float64) for each in (reading.reference, reading.candidate))
    sizes = np.array(next(labels for labels in reading.slices.values() if set(SLICES) <= set(labels)))
    wanted = ("zero_shot.accuracy", "retrieval.image_to_text_r1", "retrieval.text_to_image_r1")
    others = {name: _share(found[name]) for name in wanted}
    slices = tuple(Share.of(old[sizes == each], new[sizes == each]) for each in SLICES)
    return Scored(slices, float(new.mean() / old.mean()), others, _interval(old - new))


def _share(outcomes: Any) -> float:
    return float(np.mean(outcomes.candidate) / np.mean(outcomes.reference))


def _interval(difference: np.ndarray) -> tuple[float, float]:
    """95 % of the mean paired difference, normal."""
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)


def measured(name: str, given: argparse.Namespace) -> str:
    """One row of the table."""
    row = ROWS[name]
    teacher = load_named(NamedModel(source="pocket-clip"), offline=True)
    reference = model.write_reference(teacher, given.cache / "reference")
    encoder = copied(damaged(row.before, reference, given.cache))
    start, told, steps = cpu_seconds(), "", 0
    if row.trained:
        most = 1500 if row.before == "int4" else SMALL_SAMPLES if row.before == "scored" else given.samples
        samples = min(given.samples, most)
        feeding = Feeding.model_validate(row.feeding)
        data = DataSource(source="scenes", split="train", samples=samples, kind=row.kind, feeding=feeding)
        training = TrainingSet(stored(data, ()), feeding, reference, 0)
        method = qad if row.before == "int4" else heal
        options = {"steps": given.steps, **row.options}
        spec = method.Spec.model_validate_json(json.dumps(options))
        context = Context(None, Shown(), 0, training, teacher, given.cache)
        report = method.apply(encoder, spec, context)
        told, steps = report.summary, spec.steps
    spent = cpu_seconds() - start
    got = scored(reference, encoder, given.items)
    print(f"{name}: {told}", file=sys.stderr)
    cells = [f"{100 * each.value:.1f} ± {100 * each.half:.1f} %" for each in got.slices]
    cells += [f"{100 * each:.1f} %" for each in (got.reading, got.average)]
    lost = f"{100 * got.lost[0]:+.1f} to {100 * got.lost[1]:+.1f}"
    return f"| {name} | {steps or ''} | {spent / 60:.1f} | {' | '.join(cells)} | {lost} | {got.verdict} |"


def head(given: argparse.Namespace) -> list[str]:
    """What the table is of, and its first lines."""
    names = [*(f"reading {each} px" for each in SLICES), "reading", "average"]
    return [
        "## Healing",
        "",
        "pocket-clip without half of its MLP neurons, or in 4 bits with one scale a tensor, after as many steps of 64 "
        f"as a row says; {given.items:,} items of each task of the release split. Shares are of the reference's score, "
        "± 95 %; the goal is 97 % of every size and 98 % on average.",
        "",
        "The first five rows have one student: `prune.auto` with `mlp` and `depth` on half of all neurons, searched by "
        "how far the scores of reading's candidates move on development items (those of the text tower count "
        f"{TEXT:g}, for training brings it back), and fitted to {SCENES['scored']:,} scenes. It trains by SOAP at 1e-3 "
        f"(random weights: 2e-3) on {SMALL_SAMPLES:,} scenes and rendered texts of {', '.join(SMALL['rendered_px'])} "
        f"pixels, {SMALL['rendered']:g} of a batch. All others train on {given.samples:,} scenes (at most 1,500 for "
        'int4) and a third as many rendered texts of all sizes; "healed" is SOAP at 7e-4, "AdamW" the same losses by '
        f"AdamW at 1e-3. Their split is fitted to {SCENES['pruned']:,} scenes where nothing else is said, by gates to "
        f"{SCENES['judged']:,}.",
        "",
        f"| student | steps | CPU minutes | {' | '.join(names)} | points of reading lost, 95 % | goal |",
        f"| --- | ---: | ---: | {' | '.join(['---:'] * len(names))} | ---: | --- |",
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the rows as they come; all of them go into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=ROWS, help="these rows")
    parser.add_argument("--print", action="store_true", help="leave the document as it is")
    parser.add_argument("--list", action="store_true", help="names of the rows")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--items", type=int, default=8960)
    parser.add_argument("--cache", type=Path, default=Path("artifacts/cache"))
    given = parser.parse_args(arguments)
    given.cache = given.cache.resolve()
    if given.list:
        print("\n".join(ROWS))
        return
    lines = head(given)
    print("\n".join(lines))
    for name in given.only or ROWS:
        lines.append(measured(name, given))
        print(lines[-1], flush=True)
        if not given.print:
            merge(BEGIN, END, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
