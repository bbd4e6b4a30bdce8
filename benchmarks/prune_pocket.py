"""pocket-clip with MLP neurons removed in several ways: every slice of its gates, and the verdict on each.

Items are rendered and preprocessed once; every candidate is exported, and its files are run on the same inputs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.progress import Silent
from compress.data import runtime
from compress.data.items import Request
from compress.data.preprocess import open_preprocess
from compress.data.session import Encoder as Opened
from compress.evals import task as tasks
from compress.evals.ranking import unit
from compress.evals.task import Embeddings, Task, TaskData
from compress.gates.decision import decide
from compress.gates.outcomes import Outcomes, paired
from compress.gates.policy import Policy, load_policy
from compress.gates.rules._paired import PairedSpec
from compress.models.loading import load as load_named
from compress.models.tower import Encoder
from compress.pipeline import provenance
from compress.pipeline.calibration import Calibration
from compress.pipeline.search import shortfall
from compress.recipe.sources import DataSource, NamedModel
from compress.targets import onnxruntime_cpu

Feeds = list[Mapping[str, NDArray[np.generic]]]
POLICY = "clip_pruned"
BATCH = 64


@dataclass(frozen=True, slots=True)
class Given:
    """A task with its data, and its inputs by tower."""

    task: Task
    data: TaskData
    feeds: Mapping[str, Feeds]


@dataclass(frozen=True, slots=True)
class Scored:
    """Shares of the reference's score by metric or slice, with what the gates say: passed, failed or inconclusive."""

    shares: Mapping[str, float]
    verdict: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What candidates are measured on; `reference` are its embeddings by task, `calibration` batches by tower."""

    encoder: Encoder
    given: Mapping[str, Given]
    policy: Policy
    reference: Mapping[str, Embeddings]
    calibration: Mapping[str, Feeds]

    def levels(self) -> dict[str, float]:
        """The reference's own scores by metric or slice."""
        found = self._measured(self.reference)
        return {name: float(outcomes.reference[mask].mean()) for name, outcomes, mask in self._parts(found)}

    def score(self, make: Callable[[], Encoder], folder: Path) -> Scored:
        """Make a candidate, export it, and hold it against the reference."""
        begun = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - begun
        folder.mkdir()
        onnxruntime_cpu.export(made, folder)
        found = self._measured(_embedded(folder, self.given))
        shares = {
            name: float(outcomes.candidate[mask].mean() / outcomes.reference[mask].mean())
            for name, outcomes, mask in self._parts(found)
        }
        findings = decide(self.policy, found, "sha256:none").findings
        bad = [each for each in findings if each.status != "passed"]
        failed = sum(each.status == "failed" for each in findings)
        told = f"failed, {failed} of {len(findings)}" if failed else f"inconclusive, {len(bad)} of {len(findings)}"
        return Scored(shares, told if bad else "passed", seconds)

    def loss(self, made: Encoder) -> float:
        """What `prune.auto` searches by: mean over gates of what is lost, in margins; of slices, the worst."""
        with tempfile.TemporaryDirectory() as folder:
            onnxruntime_cpu.export(made, Path(folder))
            return shortfall(self.policy.gates, self._measured(_embedded(Path(folder), self.given)))

    def distance(self, made: Encoder) -> dict[str, float]:
        """How far the scores of reading's candidates move, by the tower that is not the reference's.

        Mean over sizes of the squared difference to the reference's scores, whose own variance is 1; what all
        candidates of an image share moves no answer and is left out. An item says more so than by being right or wrong.
        """
        given, old = self.given["reading"], self.reference["reading"]
        with tempfile.TemporaryDirectory() as folder:
            onnxruntime_cpu.export(made, Path(folder))
            new = _embedded(Path(folder), {"reading": given})["reading"]
        sizes = np.array(given.data.slices["size"])
        before = _scores(given, old.images, old.texts)

        def moved(images: NDArray[np.float32], texts: NDArray[np.float32]) -> float:
            squares = np.square(_scores(given, images, texts) - before).mean(axis=1)
            return float(np.mean([squares[sizes == each].mean() for each in np.unique(sizes)]) / before.var())

        return {"vision": moved(new.images, old.texts), "text": moved(old.images, new.texts)}

    def _measured(self, candidate: Mapping[str, Embeddings]) -> dict[str, Any]:
        return {
            f"{name}.{metric}": value
            for name, given in self.given.items()
            for metric, value in given.task.measure(given.data, self.reference[name], candidate[name]).items()
        }

    def _parts(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Outcomes, NDArray[np.bool_]]]:
        """Every gated metric, and every slice of reading, sizes in their order."""
        for metric in dict.fromkeys(gate.metric for gate in self.policy.gates):
            outcomes = paired(found[metric])
            if not isinstance(outcomes, Outcomes):
                raise SystemExit(f"{metric}: {outcomes.reason}")
            yield metric, outcomes, np.ones(len(outcomes.items), np.bool_)
            for dimension, labels in outcomes.slices.items() if metric == "reading.accuracy" else ():
                for label in sorted(
                    set(labels), key=lambda each: (int(each.split("-")[0]) if "-" in each else 0, each)
                ):
                    yield f"{dimension}={label}", outcomes, np.asarray(labels) == label


def bench(samples: int, items: int, split: str, scratch: Path) -> Bench:
    """pocket-clip on a split: `items` of reading, half as many of the other tasks, `samples` scenes to calibrate."""
    encoder = load_named(NamedModel(source="pocket-clip"))
    folder = scratch / "reference"
    folder.mkdir()
    onnxruntime_cpu.export(encoder, folder)
    told = load_policy(POLICY)
    gates = tuple(gate for gate in told.gates if isinstance(gate, PairedSpec))
    names = dict.fromkeys(gate.metric.split(".")[0] for gate in gates)
    counts = {name: items if name == "reading" else items // 2 for name in names}
    asked = {
        name: replaced(told.tasks[name], {"split": split, "items": counts[name], "items_per_slice": None})
        for name in names
    }
    given = {name: _given(name, Request(split, counts[name]), folder) for name in names}
    policy = replaced(told, {"gates": gates, "tasks": asked})
    halves = [
        DataSource(source="scenes", samples=samples // 2),
        DataSource(source="scenes", samples=samples // 2, kind="reading"),
    ]
    feeds = [Calibration(provenance.items(each, (), Silent()), folder).feeds() for each in halves]
    calibration = {kind: [batch for each in feeds for batch in each(kind)] for kind in encoder.towers}
    return Bench(encoder, given, policy, _embedded(folder, given), calibration)


def _scores(given: Given, images: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Similarities of every image to its candidates (n, c), without the mean of its row."""
    candidates = given.data.arrays["candidates"]
    images, texts = unit(images), unit(texts)
    parts = [
        np.einsum("nd,ncd->nc", images[at : at + 512], texts[candidates[at : at + 512]])
        for at in range(0, len(candidates), 512)
    ]
    found = np.concatenate(parts)
    return found - found.mean(axis=1, keepdims=True)


def replaced(model: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a pydantic model with other values."""
    return model.model_copy(update=dict(changes))


def _given(name: str, request: Request, folder: Path) -> Given:
    task = tasks.find(name, ())
    data = task.load(request)
    told = runtime.read(folder)
    prepare = open_preprocess(folder, told)
    vision, text = told.towers.vision, told.towers.text
    images = [
        {vision.input: prepare.images([data.images[place] for place in part])} for part in _batched(len(data.images))
    ]
    texts = []
    for part in _batched(len(data.texts), 512):
        ids, mask = prepare.texts([data.texts[place] for place in part])
        texts.append({text.input: ids, **({text.mask: mask} if text.mask else {})})
    return Given(task, replace(data, images=()), {"vision": images, "text": texts})


def _batched(count: int, size: int = BATCH) -> Iterator[range]:
    for at in range(0, count, size):
        yield range(at, min(at + size, count))


def _embedded(folder: Path, given: Mapping[str, Given]) -> dict[str, Embeddings]:
    opened = Opened(folder)
    made = {}
    for name, each in given.items():
        images, texts = (
            np.concatenate([getattr(opened, kind).encode(feed) for feed in each.feeds[kind]])
            for kind in ("vision", "text")
        )
        made[name] = Embeddings(images, texts, opened.runtime.logit_scale or 1.0, 1.0)
    return made
