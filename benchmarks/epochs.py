"""What an epoch takes that needs no teacher: the second one of a distillation against the first, in one run.

    python benchmarks/epochs.py                                        # rewrites docs/benchmarks.md
    python benchmarks/epochs.py --only "pocket-clip, half of its neurons" --samples 64 --runs 1    # a look

Every run trains for two epochs on the same samples with an empty cache: in the first epoch the teacher is asked once
for each sample, in the second what it said is read. Ratios are of the clock, minimum, median and maximum over the runs.
The ViT-B/32 shape has random weights: what is measured is time, and nothing about accuracy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tables import write

from compress.core.progress import Silent
from compress.data.stored import stored
from compress.data.training import TrainingSet
from compress.models.loading import load as load_named
from compress.models.tower import Encoder, copied
from compress.pipeline import model, provenance
from compress.pipeline.calibration import Calibration
from compress.recipe.sources import DataSource, NamedModel
from compress.recipe.training import Feeding
from compress.steps.distill import features, student
from compress.steps.prune import mlp
from compress.steps.step import Context

BEGIN, END = "<!-- epochs: begin, written by benchmarks/epochs.py -->", "<!-- epochs: end -->"
POCKET, LARGE = "pocket-clip, half of its neurons", "ViT-B/32 shape, 3 of its 12 layers"
BATCH = 32


@dataclass
class Clock(Silent):
    """When the training began, and when each step was done; both as seconds of the clock."""

    begun: float = 0.0
    steps: list[float] = field(default_factory=list)

    def track(self, items: Any, what: str, total: int | None = None, now: Any = None) -> Iterator[Any]:
        """Yield the items; those of `distill` are the steps of the training."""
        if what != "distill":
            yield from super().track(items, what, total, now)
            return
        self.begun = time.perf_counter()
        for each in super().track(items, what, total, now):
            self.steps.append(time.perf_counter())
            yield each

    def epochs(self) -> tuple[float, float]:
        """Seconds of the first half of the steps, and of the second."""
        middle = self.steps[len(self.steps) // 2 - 1]
        return middle - self.begun, self.steps[-1] - middle


def large(folder: Path) -> Encoder:
    """A CLIP whose vision tower has the shape of ViT-B/32, and random weights; the rest is that of pocket-clip."""
    small = load_named(NamedModel(source="pocket-clip"), offline=True)
    config = json.loads(small.files["config.json"])
    config["vision_config"] |= {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "patch_size": 32, "image_size": 224,
    }  # fmt: skip
    transformers.set_seed(0)
    transformers.CLIPModel(transformers.CLIPConfig.from_dict(config)).save_pretrained(folder)
    for name, content in small.files.items():
        if name not in ("config.json", "model.safetensors"):
            (folder / name).write_bytes(content)
    told = json.loads(small.files["processor_config.json"])
    told["image_processor"] |= {name: {"height": 224, "width": 224} for name in ("size", "crop_size")}
    (folder / "processor_config.json").write_text(json.dumps(told), "utf-8")
    return load_named(NamedModel(source=str(folder)), offline=True)


def pair(name: str, scratch: Path) -> tuple[Encoder, Encoder, Path]:
    """Teacher, student, and the folder of the float reference."""
    if name == LARGE:
        (scratch / "model").mkdir()
        teacher = large(scratch / "model")
        reference = model.write_reference(teacher, scratch / "reference")
        smaller = copied(teacher)
        told = student.Spec(towers=("vision",), config={"num_hidden_layers": 3})
        student.apply(smaller, told, Context(teacher=teacher, reference=reference, offline=True))
        return teacher, smaller, reference
    teacher = load_named(NamedModel(source="pocket-clip"), offline=True)
    reference = model.write_reference(teacher, scratch / "reference")
    smaller = copied(teacher)
    items = provenance.items(DataSource(source="scenes", samples=256), (), Silent())
    mlp.apply(smaller, mlp.Spec(towers=("vision",), ratio=0.5), Context(Calibration(items, reference).feeds()))
    return teacher, smaller, reference


def measured(name: str, samples: int, runs: int) -> str:
    """A line of the table."""
    feeding = Feeding(use="images", rendered=0.0)
    source = DataSource(source="scenes", split="train", samples=samples, feeding=feeding)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        teacher, smaller, reference = pair(name, Path(scratch))
        for _ in range(runs):
            clock, data = Clock(), TrainingSet(stored(source, ()), feeding, reference, 0)
            with tempfile.TemporaryDirectory() as cache:
                context = Context(None, clock, 0, data, teacher, Path(cache))
                spec = features.Spec(towers=("vision",), epochs=2.0, batch=BATCH, held_out=0.0, steps=None)
                features.apply(copied(smaller), spec, context)
            found.append(clock.epochs())
            print(name, *(f"{each:.1f} s" for each in found[-1]), file=sys.stderr, flush=True)
    ratios = [second / first for first, second in found]
    first, second = (statistics.median(each) for each in zip(*found, strict=True))
    told = f"{min(ratios):.2f} - {statistics.median(ratios):.2f} - {max(ratios):.2f}"
    return f"| {name} | {samples} | {first:.1f} | {second:.1f} | {told} |"


def main(arguments: Sequence[str]) -> None:
    """Print the rows; all of them go into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=(POCKET, LARGE), help="these rows, printed and not written")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(arguments)
    lines = [
        "## Epochs without a teacher", "",
        f"`python benchmarks/epochs.py --samples {given.samples} --runs {given.runs}`: `distill.features` with block "
        f"outputs, vision towers, batches of {BATCH}; the second epoch against the first, in the same run.", "",
        "| student | samples | first epoch, s | second, s | ratio, min - median - max |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    print("\n".join(lines))
    for name in given.only or (POCKET, LARGE):
        lines.append(measured(name, given.samples, given.runs))
        print(lines[-1], flush=True)
    if not given.only:
        write(BEGIN, END, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
