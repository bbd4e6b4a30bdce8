"""Encoding from the parent's side: one child per folder for all tasks, what is cached left out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.progress import Progress, Silent
from compress.data import child
from compress.data.child import Limits
from compress.data.items import Request
from compress.data.session import bounded
from compress.evals import cache
from compress.evals.task import Embeddings, Task, TaskData
from compress.gates.outcomes import Unmeasured

WORKER = "compress.evals.worker"


@dataclass(frozen=True, slots=True)
class Job:
    """A task with its data, loaded: the child loads the same again, so that no image crosses the border."""

    task: Task
    request: Request
    data: TaskData


@dataclass(frozen=True, slots=True)
class How:
    """How to encode: items per call, limits of the child, where embeddings are kept (None: nowhere)."""

    batch: int = 32
    limits: Limits = field(default_factory=Limits.of_machine)
    cache: Path | None = None
    progress: Progress = field(default_factory=Silent)


def encode(folder: Path, jobs: Mapping[str, Job], how: How) -> dict[str, Embeddings | Unmeasured]:
    """Embeddings of every job by the towers of a folder, made in a child process from the bytes in it.

    A job that broke is Unmeasured with the reason. Raises EnvironmentFailure where the provider asked for does not
    run, ResourceExhausted where time or memory ran out, IntegrityError for files that reach outside of the folder.
    """
    made: dict[str, Embeddings | Unmeasured] = {}
    keys: dict[str, str] = {}
    if how.cache is not None:
        keys = {name: cache.key_of(folder, job.data.digest, how.batch) for name, job in jobs.items()}
        kept = {name: cache.load(how.cache, key) for name, key in keys.items()}
        made |= {name: found for name, found in kept.items() if found is not None}
    todo = {name: job for name, job in jobs.items() if name not in made}
    if todo:
        made |= _in_child(folder, todo, how)
    for name in todo:
        found = made[name]
        if how.cache is not None and isinstance(found, Embeddings):
            cache.store(how.cache, keys[name], found)
    return {name: made[name] for name in jobs}


def _in_child(folder: Path, jobs: Mapping[str, Job], how: How) -> dict[str, Embeddings | Unmeasured]:
    with tempfile.TemporaryDirectory() as out:
        request = {
            "folder": str(folder.resolve()),
            "out": out,
            "batch": how.batch,
            "total": sum(len(job.data.ids) + len(job.data.texts) for job in jobs.values()),
            "jobs": [
                {
                    "key": name,
                    "file": str(job.task.file.resolve()),
                    "request": job.request.data(),
                    "digest": job.data.digest,
                }
                for name, job in jobs.items()
            ],
        }
        result = child.run(WORKER, request, bounded(how.limits, folder), how.progress, f"encoding with {folder.name}")
        return {name: _fetched(Path(out), name, result) for name in jobs}


def _fetched(out: Path, name: str, result: Mapping[str, Any]) -> Embeddings | Unmeasured:
    told = result["jobs"][name]
    if "error" in told:
        return Unmeasured(told["error"])
    grid = told["grid"]
    kinds = ("images", "texts", "tokens") if grid else ("images", "texts")
    arrays = {kind: np.load(out / f"{name}.{kind}.npy", allow_pickle=False) for kind in kinds}
    found = Embeddings(arrays["images"], arrays["texts"], result["logit_scale"], told["batch_cosine"])
    return replace(found, tokens=arrays["tokens"], grid=grid) if grid else found
