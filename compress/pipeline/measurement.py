"""Everything a policy may ask of staged bytes: its tasks, and what is measured on every artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from compress import targets
from compress.bench import latency
from compress.core.errors import CompressError
from compress.core.score import Score
from compress.data import runtime
from compress.data.album import Album
from compress.evals import suite
from compress.evals.encode import How
from compress.gates.outcomes import Census, Measurement, Unmeasured
from compress.gates.policy import Policy
from compress.models.tower import Encoder
from compress.pipeline.options import Options


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements by metric, and the latency table behind some of them (None where it was not measured)."""

    metrics: Mapping[str, Measurement]
    latency: latency.Latency | None

    @property
    def one_item(self) -> dict[str, float | None]:
        """Milliseconds of the candidate with one item, by tower."""
        rows = self.latency.rows if self.latency else ()
        return {row.tower: median(row.candidate) for row in rows if row.batch == 1}


@dataclass(frozen=True, slots=True)
class Subject:
    """A folder and the reference it is measured against, what it was written from, and the images its maker used.

    Without the encoder nobody knows what was planned, and census and export are left out.
    """

    reference: Path
    candidate: Path
    encoder: Encoder | None
    seen: Album | Unmeasured


def measure(policy: Policy, subject: Subject, seed: int, options: Options) -> Measured:
    """Measure everything that the policy declares."""
    reference, staged, encoder = subject.reference, subject.candidate, subject.encoder
    how = How(cache=options.cache / "embeddings", progress=options.progress)
    wanted = suite.Options(roots=options.data_roots, seed=seed, how=how, seen=subject.seen)
    facts: dict[str, Measurement] = {
        **suite.measure(policy, reference, staged, wanted),
        **_sizes(reference, staged),
    }
    if encoder is not None:
        facts |= _as_planned(encoder, staged)
    gated = [gate.metric for gate in policy.gates if gate.metric.split(".")[0] in {"latency", "memory"}]
    timed = _latency(reference, staged, options) if gated else Unmeasured("no gate asks for it")
    if isinstance(timed, Unmeasured):
        return Measured({**facts, **dict.fromkeys(gated, timed)}, None)
    return Measured({**facts, **timed.scores()}, timed)


def _latency(reference: Path, staged: Path, options: Options) -> latency.Latency | Unmeasured:
    opened = runtime.read(staged)
    if opened.proof is not None:
        return Unmeasured(f"{opened.proof}: how long a simulation takes says nothing of {opened.target}")
    try:
        return latency.measure(reference, staged, latency.Plan(progress=options.progress))
    except CompressError as error:
        return Unmeasured(str(error))


def model_bytes(folder: Path) -> dict[str, int]:
    """Bytes of every file below onnx/, or torch/ where that is what the towers are run by."""
    places = (folder / "onnx", folder / "torch")
    files = sorted(path for place in places for path in place.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _sizes(reference: Path, staged: Path) -> dict[str, Measurement]:
    before, after = sum(model_bytes(reference).values()), sum(model_bytes(staged).values())
    return {"size.ratio": Score.exact(after / before), "size.bytes": Score.exact(float(after))}


def _as_planned(encoder: Encoder, staged: Path) -> dict[str, Measurement]:
    """What only the writer of a folder can tell: the export's difference, and the plan beside what is in the files."""
    error = encoder.export_error
    return _census(encoder, staged) | ({} if error is None else {"export.max_abs": Score.exact(error)})


def _census(encoder: Encoder, staged: Path) -> dict[str, Measurement]:
    try:
        target = targets.load(runtime.read(staged).target)
        counted = target.counts(encoder, target.files_of(encoder, staged))
        return {f"census.{kind}": Census(planned, found) for kind, (planned, found) in counted.items()}
    except Exception as error:  # a file that cannot be opened is a finding, not a crash
        reason = Unmeasured(f"{type(error).__name__}: {error}")
        return dict.fromkeys((f"census.{kind}" for kind in encoder.towers), reason)
