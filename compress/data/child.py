"""Work in a child process: untrusted models and large allocations cannot take the parent down with them.

The parent writes a request as JSON and reads JSON lines; the child keeps its real stdout for those lines alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import compress
from compress.core import errors
from compress.core.errors import CompressError, ResourceExhausted
from compress.core.progress import Progress

Data = dict[str, Any]
_OUT_OF_RESOURCES: Final = {signal.SIGKILL, signal.SIGXCPU, signal.SIGABRT}
"""Killed by the kernel for memory, by the processor time limit, or by a C++ allocation that nobody caught."""

_NO_MEMORY: Final = (
    "bad_alloc",
    "Failed to allocate",
    "Cannot allocate memory",
    "failed to map segment",
    "MemoryError",
)
_KINDS: Final = {
    each.exit_code: each
    for each in (
        CompressError, errors.UsageError, errors.GateFailed, errors.Inconclusive, errors.EnvironmentFailure,
        errors.IntegrityError, errors.ResourceExhausted, errors.ConflictError,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use: seconds of wall time, and bytes of address space (None: no limit, as CUDA needs)."""

    seconds: float = 3600.0
    memory: int | None = None

    @classmethod
    def of_machine(cls, seconds: float = 3600.0) -> Limits:
        """As much address space as there is memory."""
        return cls(seconds, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def run(module: str, request: Mapping[str, Any], limits: Limits, progress: Progress, what: str) -> Data:
    """Run a module of the package on a request and return its result.

    Raises what the child raised; ResourceExhausted where it ran out of time or memory; CompressError with the end of
    its stderr where it died in any other way.
    """
    with started(module, request, limits) as child:
        return child.result(progress, what)


@contextlib.contextmanager
def started(module: str, request: Mapping[str, Any], limits: Limits) -> Iterator[Running]:
    """A child that works on a request while the block runs, so that two can work side by side; killed at its end."""
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as complaints:
        asked = Path(place) / "request.json"
        asked.write_text(json.dumps({"request": request, "seconds": limits.seconds, "memory": limits.memory}))
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(asked)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=place,
            env=_environment(),
        )
        with process, _Deadline(process, limits.seconds) as deadline:
            yield Running(process, deadline, complaints)


@dataclass(frozen=True, slots=True)
class Running:
    """A child at work. What it says is read by `result`; before that it may wait with a full pipe."""

    process: subprocess.Popen[str]
    deadline: _Deadline
    complaints: IO[str]

    def result(self, progress: Progress, what: str) -> Data:
        """Wait for the end, showing how far it is; raises as `run` does."""
        last = _follow(self.process, progress, what)
        code = self.process.wait()
        if self.deadline.passed:
            told = f"not done after {self.deadline.seconds:g} s"
            raise ResourceExhausted(told, what, "allow more time or ask for fewer items")
        self.complaints.seek(0)
        return _result(last, code, self.complaints.read()[-2000:], what)


class _Deadline:
    """Kills a process when its time is up, and whenever the block around it is left."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._process, self.passed, self.seconds = process, False, seconds
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True

    def _kill(self) -> None:
        self.passed = self._process.poll() is None
        self._process.kill()

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()


def _environment() -> dict[str, str]:
    """The parent's, with the parent's own package first and without a network for model files."""
    package = str(Path(compress.__file__).resolve().parent.parent)
    paths = filter(None, (package, os.environ.get("PYTHONPATH")))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _follow(process: subprocess.Popen[str], progress: Progress, what: str) -> Data:
    """Read the child's lines to the end, showing how far it is; returns the last one."""
    lines = _lines(process.stdout)
    first = next(lines, {})
    if "total" not in first:
        return first
    last: Data = {}

    def steps() -> Iterator[None]:
        for line in lines:
            yield from [None] * line.get("done", 0)
            last.update(line)

    for _ in progress.track(steps(), what, first["total"]):
        pass
    return last


def _lines(stream: IO[str] | None) -> Iterator[Data]:
    for text in stream or ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut off when the child died; its exit code tells the story
        if isinstance(line, dict):
            yield line


def _result(last: Data, code: int, complaints: str, what: str) -> Data:
    if code == 0 and "result" in last:
        result: Data = last["result"]
        return result
    if "error" in last:
        told = last["error"]
        raise _KINDS.get(told["code"], CompressError)(told["what"], told["where"], told["hint"])
    if (code < 0 and -code in _OUT_OF_RESOURCES) or any(sign in complaints for sign in _NO_MEMORY):
        raise ResourceExhausted("the child process ran out of memory", what, "free some, or use a smaller batch")
    ended = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    raise CompressError(f"the child process {ended}\n{complaints.strip()}", what)


class Channel:
    """The child's line to its parent."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def expect(self, total: int) -> None:
        """Say how many steps there will be."""
        self.send({"total": total})

    def done(self, steps: int) -> None:
        """Say that so many more steps are done."""
        self.send({"done": steps})

    def send(self, data: Data) -> None:
        """Send one line."""
        self._stream.write(json.dumps(data) + "\n")
        self._stream.flush()


def serve(work: Callable[[Data, Channel], Data]) -> int:
    """The child's main: do the work within the limits and report the result or the error; returns the exit code."""
    channel = Channel(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    asked = json.loads(Path(sys.argv[1]).read_text())
    _limit(asked["seconds"], asked["memory"])
    try:
        channel.send({"result": work(asked["request"], channel)})
    except Exception as error:
        error = exhausted(error) or error
        if not isinstance(error, CompressError):
            traceback.print_exc()
            return 1
        told = {"code": error.exit_code, "what": error.what, "where": error.where, "hint": error.hint}
        channel.send({"error": told})
        return error.exit_code
    return 0


def exhausted(error: Exception) -> ResourceExhausted | None:
    """What ran out, where an error means that something did."""
    if out_of_memory(error):
        return ResourceExhausted(f"memory ran out: {error}", hint="free some, or use a smaller batch")
    if errors.disk_full(error):
        return ResourceExhausted(f"the disk is full: {error}", hint="make room, then run again")
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that an allocation failed: C++ libraries have no class of their own for it."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def _limit(seconds: float, memory: int | None) -> None:
    """Hold this process to its limits; processor time is the backstop for a parent that is gone."""
    ceiling = int(seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (ceiling, ceiling + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def peak_memory() -> int:
    """Peak resident bytes of this process so far. (`ru_maxrss` would count the parent it was forked from.)"""
    told = Path("/proc/self/status").read_text()
    return int(told.split("VmHWM:")[1].split()[0]) * 1024


def restart_peak() -> int:
    """Let the peak start anew from what is resident now, where the kernel allows it, and return it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()
