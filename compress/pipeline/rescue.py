"""Saving a candidate whose gates fail: rungs of a ladder, each built from the original and judged on development data.

The release split is not read here. What is settled afterwards is judged on it once, as any other candidate.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from compress.artifact import manifest
from compress.artifact.staging import write_file
from compress.core import digest
from compress.core.errors import UsageError
from compress.core.score import Score
from compress.data.album import Album
from compress.data.items import Items
from compress.gates.decision import decide
from compress.gates.gate import GateSpec
from compress.gates.outcomes import Unmeasured
from compress.gates.policy import Policy
from compress.gates.rules import at_most
from compress.gates.verdict import Verdict
from compress.models.tower import Encoder, copied
from compress.pipeline import checkpoint, ladder, ledger, sensitivity
from compress.pipeline.ladder import AS_WRITTEN, Layer, Rung, Start
from compress.pipeline.measurement import Subject, measure, model_bytes
from compress.pipeline.options import Options
from compress.pipeline.sensitivity import Sensitivity
from compress.recipe.rescue import Rescue
from compress.recipe.schema import Recipe
from compress.steps.step import StepReport, scaled
from compress.targets import Target

BECAUSE: Final = "The budget of the recipe's `rescue`: what is saved may not cost more."
RECORDS: Final = "rungs.json"


@dataclass(frozen=True, slots=True)
class Tried:
    """One rung: what it changed, the verdict of the policy's gates on development data, and what it costs.

    `status` is also `over budget` (not measured) or `cannot be built`. `findings` are all that the gates found.
    """

    rung: str
    what: str
    status: str
    size_ratio: float | None = None
    latency_ratio: float | None = None
    reason: str = ""
    findings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Rescued:
    """Every rung that was tried, the one that was taken (`as written` where none passed), and why."""

    tried: tuple[Tried, ...]
    taken: str
    why: str
    steps: tuple[Mapping[str, Any], ...]
    attempts: tuple[Mapping[str, Any], ...]
    sensitivity: Sensitivity | None

    def to_data(self) -> dict[str, Any]:
        """As JSON-like data for the gate report."""
        told = asdict(self)
        del told["attempts"]
        return told


@dataclass(frozen=True, slots=True)
class Scene:
    """What every rung is built and judged with. `apply` runs a recipe's steps on an encoder."""

    recipe: Recipe
    policy: Policy
    target: Target
    reference: Path
    data: Mapping[str, Items]
    seen: Album | Unmeasured
    apply: Callable[[Recipe, Encoder], tuple[StepReport, ...]]
    options: Options


Built = tuple[Encoder, tuple[StepReport, ...]]


def walk(scene: Scene, original: Encoder, made: Built) -> tuple[Built, Rescued]:
    """Judge what the recipe made, and while the gates fail, the rungs; returns what is to be released, and the story.

    `original` is the encoder before any step. Where no rung passes, that is what the recipe says as it is written.
    """
    walker = _Walker(scene, original)
    first = walker.judged(Rung(AS_WRITTEN, "", scene.recipe.steps), made[0])
    if first.status == "passed":
        return made, walker.story(AS_WRITTEN, "its gates pass on the development split", None)
    if _hopeless(first):
        return made, walker.story(AS_WRITTEN, "what blocks it was not measured, which no rung changes", None)
    found = walker.sensitivity(made[0])
    for rung in ladder.rungs(start(scene.recipe, made, found)):
        if rung.in_float and walker.tried[-1].status == "over budget":
            continue  # more of them would cost more
        built = walker.climb(rung)
        if built is not None:
            why = "the first rung whose gates pass on the development split, inside the budget"
            return built, replace(walker.story(rung.name, why, found), steps=_told(rung))
    return made, walker.story(AS_WRITTEN, "no rung passes inside the budget: judged as the recipe says", found)


def start(recipe: Recipe, made: Built, found: Sensitivity | None) -> Start:
    """What the ladder is made from; without a sensitivity the layers with the largest weight errors are the worst."""
    encoder, reports = made
    named = layers(encoder)
    treated = tuple(
        tuple(named[row.tower, row.site] for row in report.rows if (row.tower, row.site) in named) for report in reports
    )
    if found is not None:
        worst = sensitivity.by_layer(found, {key: layer.selector for key, layer in named.items()})
    else:
        worst = _by_error(reports, named)
    return Start(recipe.steps, treated, worst, "calibration" in recipe.data)


def layers(encoder: Encoder) -> dict[tuple[str, str], Layer]:
    """The layer of every site, by tower and the site's name."""
    return {
        (kind, site.name): Layer.of(kind, site.role, site.layer, site.op == "Gather")
        for kind, tower in encoder.towers.items()
        for site in tower.sites
    }


def _by_error(reports: Sequence[StepReport], named: Mapping[tuple[str, str], Layer]) -> tuple[str, ...]:
    errors: dict[str, float] = {}
    for row in (row for report in reports if report.use.startswith("quantize.") for row in report.rows):
        selector = named[row.tower, row.site].selector
        errors[selector] = max(errors.get(selector, 0.0), row.error)
    return tuple(sorted(errors, key=lambda name: (-errors[name], name)))


def development(policy: Policy, budget: Rescue | None) -> Policy:
    """The policy on the development split; with the budget of a rescue as gates of its own."""
    tasks = {name: task.model_copy(update={"split": "development"}) for name, task in policy.tasks.items()}
    limits = {} if budget is None else {"size.ratio": budget.max_size_ratio, "latency.ratio": budget.max_latency_ratio}
    gates: tuple[GateSpec, ...] = tuple(
        at_most.Spec(metric=metric, rule="at_most", value=float(limit), because=BECAUSE)
        for metric, limit in limits.items()
        if limit is not None
    )
    return policy.model_copy(update={"tasks": tasks, "gates": (*policy.gates, *gates)})


class _Walker:
    """Builds rungs, judges them, and remembers what came out."""

    def __init__(self, scene: Scene, original: Encoder) -> None:
        self.scene, self.original = scene, original
        self.tried: list[Tried] = []
        self.attempts: tuple[Mapping[str, Any], ...] = ()
        self.records = _Records(scene)

    def climb(self, rung: Rung) -> Built | None:
        """Build and judge a rung; what it made if its gates pass, else None."""
        scene, known = self.scene, self.records.get(rung)
        scene.options.progress.say(f"rescue: {rung.name}: {rung.what}")
        if known is not None and known.status != "passed":
            self.note(known)
            return None
        # no recipe can have this name, so its checkpoint is nobody else's
        named = {"steps": rung.steps, "name": f"{scene.recipe.name}+rung{len(self.tried)}"}
        recipe, encoder = scene.recipe.model_copy(update=named), copied(self.original)
        try:
            reports = scene.apply(recipe, encoder)
            encoder = scaled(encoder, reports)
            passed = self.judged(rung, encoder).status == "passed"
        except UsageError as error:
            self.note(Tried(rung.name, rung.what, "cannot be built", reason=str(error)))
            passed = False
        checkpoint.discard(checkpoint.place(scene.options.output, recipe.name))
        return (encoder, reports) if passed else None

    def judged(self, rung: Rung, encoder: Encoder) -> Tried:
        """What the gates find on the development split in an encoder as it would be shipped."""
        known = self.records.get(rung)
        if known is None:
            known = self._measured(rung, encoder)
            self.records.keep(rung, known)
        self.note(known)
        return known

    def note(self, found: Tried) -> None:
        """Take an outcome into the story."""
        self.tried.append(found)
        self.scene.options.progress.say(f"rescue: {found.rung}: {found.status}")

    def _measured(self, rung: Rung, encoder: Encoder) -> Tried:
        scene, options = self.scene, self.scene.options
        budget = None if rung.name == AS_WRITTEN else scene.recipe.rescue
        policy = development(scene.policy, budget)
        options.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.cache, prefix=".rung-") as scratch:
            folder = Path(scratch) / "candidate"
            folder.mkdir()
            scene.target.export(encoder, folder)
            size = sum(model_bytes(folder).values()) / sum(model_bytes(scene.reference).values())
            if budget is not None and budget.max_size_ratio is not None and size > budget.max_size_ratio:
                told = f"{size:.3f} of the reference's bytes, and {budget.max_size_ratio:g} is the budget"
                return Tried(rung.name, rung.what, "over budget", size, reason=told)
            subject = Subject(scene.reference, folder, encoder, scene.seen)
            measured = measure(policy, subject, scene.recipe.seed, options)
            verdict = decide(policy, measured.metrics, manifest.scan(folder, "rung").subject)
        self.attempts = tuple(ledger.record(options.output, policy, verdict, f"{scene.recipe.name}: {rung.name}"))
        latency = measured.metrics.get("latency.ratio")
        time = latency.value if isinstance(latency, Score) else None
        return Tried(rung.name, rung.what, verdict.status, size, time, _reason(verdict), _findings(verdict))

    def sensitivity(self, encoder: Encoder) -> Sensitivity | None:
        """The damage of each layer, where the recipe has calibration data."""
        scene, options = self.scene, self.scene.options
        spec = scene.recipe.data.get("calibration")
        if spec is None:
            return None
        items, fresh = sensitivity.held_out(spec, scene.data["calibration"], options.data_roots, options.progress)
        return sensitivity.measure(encoder, items, scene.reference, fresh, options.progress)

    def story(self, taken: str, why: str, found: Sensitivity | None) -> Rescued:
        """What is reported."""
        return Rescued(tuple(self.tried), taken, why, (), self.attempts, found)


class _Records:
    """What finished rungs scored, kept beside the steps' checkpoint, so that a killed run need not measure again."""

    def __init__(self, scene: Scene) -> None:
        self._file = checkpoint.place(scene.options.output, scene.recipe.name) / RECORDS
        items = scene.data.get("calibration")
        self._follows = {
            **checkpoint.fingerprint(scene.recipe, scene.reference, items.digest if items else None),
            "policy": scene.policy.digest,
        }
        self._held: dict[str, Any] = self._read() if scene.options.resume else {}

    def _read(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    def _key(self, rung: Rung) -> str:
        steps = [{"use": step.use, **step.spec.model_dump(mode="json")} for step in rung.steps]
        return digest.of_data({"follows": self._follows, "rung": rung.name, "steps": steps})

    def get(self, rung: Rung) -> Tried | None:
        """What is known of a rung that follows from the same recipe, model, data and policy."""
        told = self._held.get(self._key(rung))
        try:
            return None if told is None else Tried(**{**told, "findings": tuple(told["findings"])})
        except (TypeError, KeyError):
            return None

    def keep(self, rung: Rung, found: Tried) -> None:
        """Note what was found."""
        self._held[self._key(rung)] = asdict(found)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._file, json.dumps(self._held).encode())


def _hopeless(found: Tried) -> bool:
    """Whether all that blocks has no value: it was not measured, so no other weights would change it."""
    blocking = [each for each in found.findings if each["status"] != "passed"]
    return all(each["value"] is None for each in blocking)


def _findings(verdict: Verdict) -> tuple[Mapping[str, Any], ...]:
    keys = ("metric", "rule", "slice", "status", "value", "bound", "threshold", "n", "reason")
    return tuple({key: each[key] for key in keys} for each in verdict.to_data()["findings"])


def _reason(verdict: Verdict) -> str:
    """The gates that block, in words."""
    return "; ".join(_blocking(verdict))


def _blocking(verdict: Verdict) -> Iterator[str]:
    for each in verdict.findings:
        if each.status != "passed":
            yield f"{each.metric}{f' {each.slice}' if each.slice else ''} {each.status}"


def _told(rung: Rung) -> tuple[Mapping[str, Any], ...]:
    """The rung's steps as a recipe would write them: options that are no defaults."""
    return tuple({"use": step.use, **step.spec.model_dump(mode="json", exclude_defaults=True)} for step in rung.steps)
