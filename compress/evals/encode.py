"""Encoding from the parent's side: one child per folder for all tasks, what is cached left out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.progress import Progress, Silent
from compress.data import child
from compress.data.child import Limits, Running
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
    """How to encode: items per call, limits of the child, where embeddings are kept (None: nowhere).

    `threads` are those of a session whose runtime file leaves their number open; 0: one for each core.
    """

    batch: int = 32
    limits: Limits = field(default_factory=Limits.of_machine)
    cache: Path | None = None
    progress: Progress = field(default_factory=Silent)
    threads: int = 0


def encode(folder: Path, jobs: Mapping[str, Job], how: How) -> dict[str, Embeddings | Unmeasured]:
    """Embeddings of every job by the towers of a folder, made in a child process from the bytes in it.

    A job that broke is Unmeasured with the reason. Raises EnvironmentFailure where the provider asked for does not
    run, ResourceExhausted where time or memory ran out, IntegrityError for files that reach outside of the folder.
    """
    with Encoding(folder, jobs, how) as encoding:
        encoding.look()
        encoding.start(how.threads)
        return encoding.result()


class Encoding:
    """The same in parts, so that two folders can be encoded side by side: `look`, `start`, `result`."""

    def __init__(self, folder: Path, jobs: Mapping[str, Job], how: How) -> None:
        self._folder, self._jobs, self._how = folder, jobs, how
        self._keys: dict[str, str] = {}
        self._made: dict[str, Embeddings | Unmeasured] = {}
        self._todo: dict[str, Job] = {}
        self._child: Running | None = None
        self._open = ExitStack()

    def look(self) -> bool:
        """Take what was kept from before; returns whether that is everything."""
        if self._how.cache is not None:
            batch = self._how.batch
            self._keys = {name: cache.key_of(self._folder, job.data.digest, batch) for name, job in self._jobs.items()}
            kept = {name: cache.load(self._how.cache, key) for name, key in self._keys.items()}
            self._made = {name: found for name, found in kept.items() if found is not None}
        self._todo = {name: job for name, job in self._jobs.items() if name not in self._made}
        return not self._todo

    def __enter__(self) -> Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self, threads: int) -> None:
        """Start the child, if there is anything to do."""
        if not self._todo:
            return
        self._out = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        request = {
            "folder": str(self._folder.resolve()),
            "out": str(self._out),
            "batch": self._how.batch,
            "threads": threads,
            "total": sum(len(job.data.ids) + len(job.data.texts) for job in self._todo.values()),
            "jobs": [
                {
                    "key": name,
                    "file": str(job.task.file.resolve()),
                    "request": job.request.data(),
                    "digest": job.data.digest,
                }
                for name, job in self._todo.items()
            ],
        }
        self._child = self._open.enter_context(child.started(WORKER, request, bounded(self._how.limits, self._folder)))

    def result(self) -> dict[str, Embeddings | Unmeasured]:
        """The embeddings of every job; what was made anew is kept where `how` says so."""
        if self._child is not None:
            told = self._child.result(self._how.progress, f"encoding with {self._folder.name}")
            self._made |= {name: _fetched(self._out, name, told) for name in self._todo}
        for name in self._todo:
            found = self._made[name]
            if self._how.cache is not None and isinstance(found, Embeddings):
                cache.store(self._how.cache, self._keys[name], found)
        return {name: self._made[name] for name in self._jobs}


def _fetched(out: Path, name: str, result: Mapping[str, Any]) -> Embeddings | Unmeasured:
    told = result["jobs"][name]
    if "error" in told:
        return Unmeasured(told["error"])
    grid = told["grid"]
    kinds = ("images", "texts", "tokens") if grid else ("images", "texts")
    arrays = {kind: np.load(out / f"{name}.{kind}.npy", allow_pickle=False) for kind in kinds}
    found = Embeddings(arrays["images"], arrays["texts"], result["logit_scale"], told["batch_cosine"])
    return replace(found, tokens=arrays["tokens"], grid=grid) if grid else found
