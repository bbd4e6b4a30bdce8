"""What a run writes beside the model: gate report, JUnit, HTML, card, per-item outcomes, environment."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from compress import __version__
from compress.artifact import layout
from compress.artifact.staging import Staging
from compress.bench import proof
from compress.bench.proof import Cell
from compress.core.score import Score
from compress.data import runtime
from compress.gates import damage, intervals, statistics, waiving
from compress.gates.junit import junit
from compress.gates.outcomes import Measurement, Outcomes
from compress.gates.verdict import Verdict
from compress.models.graph import parameter_count
from compress.models.tower import Encoder
from compress.pipeline.measurement import Measured, model_bytes
from compress.pipeline.rescue import Rescued
from compress.recipe import writing
from compress.recipe.schema import Recipe
from compress.recipe.waivers import Waivers
from compress.report import card, page
from compress.report.document import Document
from compress.steps.step import StepReport
from compress.targets.graph import census

Parts = Mapping[str, Mapping[str, int]]
PACKAGES: Final = (
    "numpy", "onnx", "onnxruntime", "torch", "transformers", "pillow", "scipy", "scikit-learn",
    "pymilvus", "milvus-lite",
)  # fmt: skip


ENGINES: Final = {"tensorrt": "TensorrtExecutionProvider"}
"""Targets that are measured elsewhere, and the provider that would prove them."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is known at the end of a run. `verdict` and `measured` are None where no policy decides.

    `attempts` says how many candidates the policy has judged on each split (see ledger.py). `waivers` are those that
    were given, whether they were needed or not. `blockwise` stands for gates where a model is too large.
    """

    recipe: Recipe
    encoder: Encoder
    reference: Path
    steps: Sequence[StepReport]
    verdict: Verdict | None
    measured: Measured | None
    attempts: Sequence[Mapping[str, Any]] = ()
    waivers: Waivers | None = None
    proofs: Sequence[Cell] = ()
    rescued: Rescued | None = None
    blockwise: Mapping[str, Any] | None = None


def write(staging: Staging, run: Run, digest: str) -> Document:
    """Write all evidence into the staging folder; returns the report as it was written."""
    report = gate_report(run, staging.folder, digest)
    staging.write(layout.GATE_REPORT, _json(report))
    document = Document.model_validate(report)
    if run.verdict is not None and run.measured is not None:
        staging.write(layout.JUNIT, junit(run.verdict).encode())
        if run.waivers is not None:
            staging.write(layout.WAIVERS, writing.dump(run.waivers.to_data()).encode())
        _write_samples(staging.path(layout.SAMPLES), run.measured.metrics)
    staging.write(layout.HTML_REPORT, page.render(document).encode())
    staging.write(layout.CARD, card.render(document).encode())
    staging.write(layout.ENVIRONMENT, _json(report["environment"]))
    return document


def gate_report(run: Run, folder: Path, digest: str) -> dict[str, Any]:
    """The gate report as JSON-like data."""
    verdict, measured = run.verdict, run.measured
    status: layout.Status = verdict.status if verdict else "ungated"
    encoder, told = run.encoder, runtime.read(folder)
    proved = proof.proved(run.proofs, ENGINES.get(told.target, ""))
    return {
        "version": 1,
        "name": run.recipe.name,
        "digest": digest,
        "status": status,
        "exit_code": layout.EXIT_CODES[status],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": {
            "source": run.recipe.model.source,
            "revision": encoder.revision,
            "parameters": encoder.parameters,
            "architecture": encoder.architecture,
            "license": encoder.license,
        },
        "policy": {"name": verdict.policy_name, "digest": verdict.policy_digest} if verdict else None,
        "recipe": {"name": run.recipe.name, "digest": run.recipe.digest},
        "steps": [step_data(step) for step in run.steps],
        "findings": verdict.to_data()["findings"] if verdict else [],
        "waivers": waiving.record(verdict, run.waivers) if verdict else None,
        "scores": list(scores(measured.metrics)) if measured else [],
        "damage": damage_data(measured.metrics) if measured else None,
        "bootstrap": bootstrap_data() if measured else None,
        "sizes": list(sizes(run.reference, folder, floats=_floats(encoder))),
        "latency": measured.latency.data()["rows"] if measured and measured.latency else [],
        "environment": environment(),
        "attempts": [*run.attempts, *_development(run)],
        "rescue": run.rescued.to_data() if run.rescued else None,
        "target": {"name": told.target, "proof": None if proved else told.proof},
        "proofs": [cell.data() for cell in run.proofs],
        **({} if run.blockwise is None else {"blockwise": dict(run.blockwise)}),
    }


def _development(run: Run) -> list[Mapping[str, Any]]:
    """What the ledger counted on the split that a rescue read, beside those of the verdict."""
    counted = {each["split"] for each in run.attempts}
    return [each for each in (run.rescued.attempts if run.rescued else ()) if each["split"] not in counted]


def step_data(step: StepReport) -> dict[str, Any]:
    """What a step did; a number of its curves that is not finite is null."""
    told = asdict(step)
    for curve in told["curves"]:
        curve["values"] = [value if np.isfinite(value) else None for value in curve["values"]]
    return told


def _floats(encoder: Encoder) -> dict[str, int]:
    """Bytes of the towers in float32 where no file holds them."""
    if encoder.shards is None:
        return {}
    return {kind: 4 * parameter_count(tower.graph) for kind, tower in encoder.towers.items()}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False, default=list) + "\n").encode()


def environment() -> dict[str, Any]:
    """Versions that results depend on, nothing that names a person, a machine or a path."""
    have = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "packages": {"compress": __version__, **have},
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cpu() -> str:
    """The processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def scores(metrics: Mapping[str, Measurement]) -> Iterator[dict[str, Any]]:
    """A row for each metric, and for each slice of those that have slices."""
    for metric, found in sorted(metrics.items()):
        if isinstance(found, Score):
            yield _row(metric, found.n, None, found)
        elif isinstance(found, Outcomes):
            yield _paired(metric, found, np.ones(len(found.items), np.bool_))
            for dimension, labels in found.slices.items():
                for label in dict.fromkeys(labels):
                    mask = np.array([each == label for each in labels])
                    yield {**_paired(metric, found, mask), "dimension": dimension, "slice": label}


def _paired(metric: str, found: Outcomes, mask: Any) -> dict[str, Any]:
    new = statistics.level(found, found.candidate, mask, 0.95)
    if not statistics.comparable(found):  # a cosine with the reference has no reference of its own to drop from
        return _row(metric, int(mask.sum()), None, new)
    old = statistics.level(found, found.reference, mask, 0.95)
    return _row(metric, int(mask.sum()), old, new, statistics.drop(found, mask, 0.95))


def _row(metric: str, n: int, old: Score | None, new: Score, drop: Score | None = None) -> dict[str, Any]:
    told = {"reference": old, "candidate": new, "drop": drop}
    return {"metric": metric, "n": n, **{name: score and _span(score) for name, score in told.items()}}


def _span(score: Score) -> dict[str, float | None]:
    ends = {"value": score.value, "low": score.low, "high": score.high}
    return {name: end if end is not None and np.isfinite(end) else None for name, end in ends.items()}


def damage_data(metrics: Mapping[str, Measurement]) -> dict[str, Any]:
    """Slices that are worse for sure, surest first: for diagnosis, no gate looks at them."""
    found = damage.damages(metrics)
    return {"level": damage.LEVEL, "tested": found.tested, "slices": [asdict(each) for each in found.slices]}


def bootstrap_data() -> dict[str, Any]:
    """What it takes to repeat the intervals that were resampled."""
    return {"method": "BCa", "resamples": intervals.RESAMPLES, "seed": statistics.SEED}


def sizes(
    reference: Path, folder: Path, parts: Parts | None = None, floats: Mapping[str, int] | None = None
) -> Iterator[dict[str, Any]]:
    """A row for each model file: bytes before and after, and what the bytes after are spent on.

    `parts` tells that for each tower of a folder that was not written here: its files are not opened in this process.
    `floats` are the bytes of float towers of which the reference holds no file.
    """
    before = model_bytes(reference) or {f"onnx/{kind}_model.onnx": size for kind, size in (floats or {}).items()}
    for file, size in model_bytes(folder).items():
        tower = Path(file).parts[1].split("_")[0]
        yield {
            "file": file,
            "tower": tower,
            "reference_bytes": sum(old for name, old in before.items() if Path(name).name.startswith(tower)),
            "candidate_bytes": size,
            "parts": _parts(folder / file, tower, parts) if file.endswith(".onnx") else {},
        }


def _parts(file: Path, tower: str, told: Parts | None) -> Mapping[str, int]:
    if told is not None:
        return told.get(tower, {})
    return census.parts(onnx.load(file, load_external_data=False))


def _write_samples(path: Path, metrics: Mapping[str, Measurement]) -> None:
    """Every item's outcome under the reference and under the candidate, one row each."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {
        name: [] for name in ("metric", "item", "cluster", "slices", "reference", "candidate", "weight")
    }
    for metric, found in sorted(metrics.items()):
        if not isinstance(found, Outcomes):
            continue
        count = len(found.items)
        columns["metric"] += [metric] * count
        columns["item"] += found.items
        columns["cluster"] += found.clusters or (None,) * count
        columns["slices"] += [
            json.dumps({name: labels[at] for name, labels in sorted(found.slices.items())}) for at in range(count)
        ]
        columns["reference"] += found.reference.tolist()
        columns["candidate"] += found.candidate.tolist()
        columns["weight"] += [1.0] * count if found.weights is None else found.weights.tolist()
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
