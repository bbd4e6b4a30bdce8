"""What `compress gate` judges: whatever was named, as a folder that runs, with what is known of its making."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.data.album import Album
from compress.gates.outcomes import Unmeasured
from compress.pipeline import foreign, inputs, provenance, tower_contents
from compress.pipeline.foreign import Given
from compress.pipeline.options import Options
from compress.pipeline.runnable import exported_here, runnable
from compress.recipe import statement

Towers = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says: a path, or the files of towers; how these take their inputs; what was stated."""

    path: str | None
    files: Mapping[str, Path]
    like: str | None = None
    preprocess: Path | None = None
    calibration: str | None = None
    allow_pickle: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that runs, what it is called, the images its maker used (or why nobody knows them).

    `towers` is what its files contain, `stated` the data that the user says it was calibrated on (None: nothing was
    said); both are JSON-like, for the report.
    """

    folder: Path
    name: str
    seen: Album | Unmeasured
    towers: Towers
    stated: Mapping[str, Any] | None


@contextmanager
def candidate(asked: Asked, reference: Path, options: Options) -> Iterator[Candidate]:
    """Lend the candidate; ONNX files are laid out in a folder of the cache for as long as it is used.

    Raises UsageError for what is no model or does not match the reference, IntegrityError for files that reach
    outside of their folder, EnvironmentFailure for what would have to be downloaded.
    """
    given = _given(asked)
    if given is None:
        if asked.like or asked.preprocess:
            raise UsageError("goes with ONNX files only", "--like" if asked.like else "--preprocess")
        folder = runnable(str(asked.path), options, asked.allow_pickle)
        name = Path(str(asked.path)).resolve().name if exported_here(folder, options) else folder.resolve().name
        seen, stated = _made_with(folder, reference, asked, options)
        yield Candidate(folder, name, seen, tower_contents.read(folder, foreign.KINDS), stated)
        return
    like = runnable(asked.like, options, asked.allow_pickle) if asked.like else reference
    if asked.like and len(given.files) < len(foreign.KINDS):
        raise UsageError("the missing tower is the reference's, which goes with no other model", "--like", "name both")
    options.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.cache, prefix=".gate-") as scratch:
        folder = Path(scratch) / "candidate"
        folder.mkdir()
        told = foreign.lay_out(given, like, inputs.read(asked.preprocess) if asked.preprocess else None, folder)
        seen, stated = _made_with(folder, reference, asked, options)
        yield Candidate(folder, given.name, seen, told, stated)


def _given(asked: Asked) -> Given | None:
    if not asked.files:
        if asked.path is None:
            raise UsageError("name what is to be judged", hint="PATH, or --vision FILE.onnx and --text FILE.onnx")
        return foreign.found(Path(asked.path))
    if asked.path is not None:
        raise UsageError("name a PATH or the files of the towers, not both", "--" + next(iter(asked.files)))
    return Given(next(iter(asked.files.values())).stem, asked.files)


def _made_with(
    folder: Path, reference: Path, asked: Asked, options: Options
) -> tuple[Album | Unmeasured, Mapping[str, Any] | None]:
    """The images it was made with, or why nobody knows them, and what was stated, which may not contradict itself."""
    if asked.calibration is None:
        if folder == reference:
            return Album(()), None  # it was shown nothing that the reference was not
        return provenance.seen_by(folder, options), None
    if (folder / layout.RECIPE).is_file():
        raise UsageError("the artifact itself says what it was calibrated on", "--calibration", "leave it out")
    data = statement.read(asked.calibration)
    return provenance.seen(data, options), statement.told(data)
