"""What the steps of a run have decided so far, kept on disk, so that a killed run need not repeat them.

After step k the folder `<output>/staging/.<name>.checkpoint/` gets `k.npz`, the towers' treatments (and graphs, where
a step changed them), and then `k.json`, its seal: the digest of those bytes and the fingerprint of what they follow
from. A seal without its bytes, or bytes without their seal, is no checkpoint.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from compress import __version__
from compress.artifact import manifest
from compress.artifact.staging import write_file
from compress.core import digest
from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import Treatment
from compress.recipe.schema import Recipe
from compress.steps.step import Curve, SiteReport, StepReport

Arrays = dict[str, NDArray[Any]]
_KINDS: Final = {kind.__name__: kind for kind in get_args(Treatment)}
_LIBRARIES: Final = ("numpy", "onnx", "onnxruntime", "torch")
_POLICY: Final = {"policy", "reason"}
"""What of a recipe does not change what its steps do: other gates may decide on the same towers."""


class _DamagedError(Exception):
    """A checkpoint that is not what it was when it was written."""


def place(output: Path, name: str) -> Path:
    """The checkpoint folder of a recipe's name below an output root."""
    return output / "staging" / f".{name}.checkpoint"


def discard(folder: Path) -> None:
    """Remove a checkpoint folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def fingerprint(recipe: Recipe, reference: Path, data: str | None) -> dict[str, str | None]:
    """Everything the outcome of the steps follows from; `data` is the digest of the calibration data."""
    told = {key: value for key, value in recipe.resolved().items() if key not in _POLICY}
    told["model"] = {key: value for key, value in told["model"].items() if key != "streaming"}
    return {
        "recipe": digest.of_data(told),
        "model": manifest.scan(reference, "reference").subject,
        "calibration data": data,
        "compress": __version__,
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@dataclass
class Checkpoint:
    """The checkpoint folder of one run; made before its first step, while the towers are as they were loaded."""

    folder: Path
    follows: Mapping[str, str | None]
    encoder: Encoder
    progress: Progress
    _loaded: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._loaded = {kind: _graph_digest(tower.graph) for kind, tower in self.encoder.towers.items()}

    def start(self, resume: bool) -> list[StepReport]:
        """Reports of the steps that need not run again: none unless `resume`, which puts the towers where they were.

        The newest checkpoint that is whole is taken. Raises UsageError where it follows from something else.
        """
        if not resume:
            discard(self.folder)
            return []
        seals = (path.stem for path in self.folder.glob("*.json"))
        for step in sorted((int(name) for name in seals if name.isdecimal()), reverse=True):
            try:
                reports = self._restore(step)
            except _DamagedError as error:
                self.progress.say(
                    f"the checkpoint after step {step} is damaged ({error}); going back to the one before"
                )
                continue
            self.progress.say(f"resumed after step {step}: {', '.join(report.use for report in reports)}")
            return reports
        self.progress.say("there is no checkpoint to resume; starting with the first step")
        return []

    def save(self, reports: list[StepReport]) -> None:
        """Keep what the steps reported so far have done."""
        step = len(reports)
        arrays, told = self._packed()
        told["reports"] = [asdict(report) for report in reports]
        arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **arrays)
        content = held.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        seal = {"step": step, "sha256": digest.of_bytes(content), "follows": dict(self.follows)}
        write_file(self.folder / f"{step}.npz", content)
        write_file(self.folder / f"{step}.json", json.dumps(seal, indent=1).encode())

    def _packed(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays by name, and everything that is not an array."""
        arrays: Arrays = {}
        told: dict[str, Any] = {"towers": {}}
        for kind, tower in self.encoder.towers.items():
            treatments = []
            for at, (site, held) in enumerate(tower.treatments.items()):
                parts = {each.name: getattr(held, each.name) for each in fields(held)}
                plain = {name: _plain(value) for name, value in parts.items() if not isinstance(value, np.ndarray)}
                arrays |= {f"{kind}/{at}/{name}": value for name, value in parts.items() if name not in plain}
                treatments.append([site, type(held).__name__, plain])
            told["towers"][kind] = {"treatments": treatments}
            if _graph_digest(tower.graph) != self._loaded[kind]:
                told["towers"][kind]["sites"] = [asdict(site) for site in tower.sites]
                told["towers"][kind]["config"] = None if tower.config is None else dict(tower.config)
                pieces = enumerate(_pieces(tower.graph))
                arrays |= {f"{kind}/graph/{at}": np.frombuffer(piece, np.uint8) for at, piece in pieces}
        return arrays, told

    def _restore(self, step: int) -> list[StepReport]:
        """Put the towers where they were after a step; returns the reports up to it."""
        try:
            seal = json.loads((self.folder / f"{step}.json").read_bytes())
            follows, promised, said = dict(seal["follows"]), seal["sha256"], seal["step"]
            content = (self.folder / f"{step}.npz").read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _DamagedError(type(error).__name__) from error
        if said != step or digest.of_bytes(content) != promised:
            raise _DamagedError("its digest is another")
        self._require_same(follows)
        arrays: Arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
        told = json.loads(arrays.pop("told").tobytes())
        for kind, tower in self.encoder.towers.items():
            _unpack(tower, told["towers"][kind], {name: arrays[name] for name in arrays if name.startswith(f"{kind}/")})
        return [report_of(data) for data in told["reports"]]

    def _require_same(self, follows: Mapping[str, str | None]) -> None:
        changed = [name for name in self.follows if follows.get(name) != self.follows[name]]
        if changed:
            raise UsageError(
                f"cannot resume: {', '.join(changed)} changed since the checkpoint was written",
                str(self.folder),
                "run without --resume to start again, or put back what was there",
            )


def _unpack(tower: Tower, told: Mapping[str, Any], arrays: Arrays) -> None:
    """Put one tower where it was."""
    treatments: dict[str, Treatment] = {}
    for at, (site, kind, plain) in enumerate(told["treatments"]):
        start = f"{tower.kind}/{at}/"
        own = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
        treatments[site] = _KINDS[kind](**plain, **own)
    tower.treatments = treatments
    if "sites" in told:
        tower.config = told.get("config")
        tower.sites = tuple(Site(**{**site, "shape": tuple(site["shape"])}) for site in told["sites"])
        count = sum(name.startswith(f"{tower.kind}/graph/") for name in arrays)
        tower.graph = _joined([arrays[f"{tower.kind}/graph/{at}"].tobytes() for at in range(count)])


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's, which JSON writes and reads without loss."""
    return value.item() if isinstance(value, np.generic) else value


def report_of(data: Mapping[str, Any]) -> StepReport:
    """A report from its JSON-like data."""
    rows = tuple(SiteReport(**row) for row in data["rows"])
    curves = tuple(Curve(each["name"], tuple(each["steps"]), tuple(each["values"])) for each in data["curves"])
    table = tuple(map(tuple, data["table"]))
    return StepReport(**{**data, "rows": rows, "table": table, "curves": curves})


def _pieces(graph: onnx.ModelProto) -> list[bytes]:
    """A graph as bytes: everything but its weights, and then each weight; in one piece it may not exceed 2 GB."""
    rest = onnx.ModelProto()
    rest.CopyFrom(graph)
    del rest.graph.initializer[:]
    return [each.SerializeToString(deterministic=True) for each in (rest, *graph.graph.initializer)]


def _joined(pieces: list[bytes]) -> onnx.ModelProto:
    """The graph of `_pieces`."""
    made = onnx.ModelProto()
    made.ParseFromString(pieces[0])
    for piece in pieces[1:]:
        made.graph.initializer.add().ParseFromString(piece)
    return made


def _graph_digest(graph: onnx.ModelProto) -> str:
    return digest.of_data([digest.of_bytes(piece) for piece in _pieces(graph)])
