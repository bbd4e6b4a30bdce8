"""What a recipe would do, told by doing it on sixteen scenes in a temporary folder; only times are measured, briefly.

Sizes, shapes and refusals do not depend on the data that calibrate a step, so the plan needs none of the recipe's own.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compress.core import names
from compress.core.errors import UsageError
from compress.data.child import peak_memory
from compress.data.items import Items
from compress.gates.policy import Policy, load_policy
from compress.models import cost
from compress.models.graph import parameter_count
from compress.models.loading import Described
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import BlockWeights, BnbWeights, Float16, StaticFloat8, StaticInt8
from compress.pipeline import demand, ladder, model, prediction, provenance, rescue, sensitivity, streamed
from compress.pipeline.calibration import BATCH, Calibration
from compress.pipeline.demand import GateDemand, TaskDemand
from compress.pipeline.forecast import Forecast, Treated
from compress.pipeline.ladder import Start
from compress.pipeline.measurement import model_bytes
from compress.pipeline.options import Options
from compress.pipeline.prediction import Left, Prediction
from compress.pipeline.run import policy_file, target_of
from compress.pipeline.search import SEARCHES
from compress.pipeline.sensitivity import Sensitivity
from compress.pipeline.training import STUDENT, trains, untrained
from compress.recipe.schema import TRAINING, Recipe, Step
from compress.recipe.sources import DataSource
from compress.steps.quantize._weights import in_words
from compress.steps.step import Context, Feeds, SiteReport
from compress.targets import Target


@dataclass(frozen=True, slots=True)
class Planned:
    """What happens to one site: the weight's shape in the graph, its role, and how it will be held.

    `padding` is how many zeros complete the last block of every row, 0 where blocks divide it.
    """

    tower: str
    site: str
    role: str
    shape: tuple[int, ...]
    treatment: str
    bits: int | None = None
    block: int | None = None
    padding: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: what it matches, and whether it asks for calibration data."""

    use: str
    calibrates: bool
    rows: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a tower's files in float and as the recipe leaves it, its parameters, and the work of its products.

    `work` is the multiplications per token of the blocks' products over what they were; 1 unless something is pruned.
    """

    tower: str
    parameters: int
    before: int
    after: int | None
    parameters_after: int
    work: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something the recipe asks for that cannot be, and what could be instead."""

    where: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class RungPlan:
    """What a rescue would try, and what it would change; which layers are the worst, only a sensitivity can tell."""

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before a run. `memory` is the peak of this process while it found that out, in bytes.

    `rungs` are those of a rescue, cheapest first; `sensitivity` is there where it was asked for.

    Of a model larger than memory only its headers were read: `memory` is then what all processes of a run are expected
    to take together, and `disk` what lies on the disk before the artifact is settled.
    """

    recipe: str
    source: str
    architecture: str
    parameters: int
    steps: tuple[StepPlan, ...]
    sizes: tuple[Size, ...]
    calibration: dict[str, Any] | None
    memory: int
    policy: str | None
    tasks: tuple[TaskDemand, ...]
    gates: tuple[GateDemand, ...]
    refused: tuple[Refusal, ...]
    rungs: tuple[RungPlan, ...] = ()
    sensitivity: Sensitivity | None = None
    predictions: tuple[Prediction, ...] = ()
    disk: int | None = None

    @property
    def ratio(self) -> float | None:
        """Bytes after over bytes before, of all towers."""
        after = [size.after for size in self.sizes if size.after is not None]
        return sum(after) / sum(size.before for size in self.sizes) if len(after) == len(self.sizes) else None

    def to_data(self) -> dict[str, Any]:
        """As JSON-like data."""
        return {"version": 1, **asdict(self), "ratio": self.ratio}


def plan(recipe: Recipe, file: Path, options: Options, sensitive: bool = False) -> Plan:
    """What `run` would do with a recipe. Raises UsageError for a model, target or policy that is not there.

    `sensitive` also measures what each treated layer does to the embeddings, which takes the recipe's own data.
    """
    policy = load_policy(policy_file(recipe, file)) if recipe.gated else None
    target = target_of(recipe)
    tasks = demand.tasks_of(policy, recipe.seed) if policy else ()
    refused = [_refusal(error) for error in demand.unmeasurable(policy)] if policy else []
    if (large := streamed.expected(recipe, options)) is not None:
        return _streamed(recipe, *large, policy, tasks, refused)
    encoder = model.load(recipe.model, file, options.offline, options.data_roots)
    with tempfile.TemporaryDirectory() as scratch:
        reference, candidate = Path(scratch) / "reference", Path(scratch) / "candidate"
        reference.mkdir()
        model.export_float(model.original(encoder, options.offline, options.data_roots), reference)
        counted = {kind: (parameter_count(tower.graph), cost.work(tower)) for kind, tower in encoder.towers.items()}
        shown = _shown(recipe, sensitive, options)
        steps = tuple(_rehearse(recipe, encoder, Calibration(shown, reference), options, refused))
        found = _sensitivity(recipe, encoder, shown, reference, options) if sensitive else None
        refused += _export(target, encoder, candidate)
        sizes = tuple(_sizes(counted, encoder, reference, candidate))
        around = _predictions(recipe, encoder, sizes, (reference, Path(scratch) / "pruned"), options)
    spec = recipe.data.get("calibration")
    refused += _without_data(recipe, steps)
    refused += [_refusal(error) for error in untrained(recipe)]
    return Plan(
        recipe=recipe.name,
        source=encoder.source,
        architecture=encoder.architecture,
        parameters=encoder.parameters,
        steps=steps,
        sizes=sizes,
        calibration=spec.model_dump(mode="json", exclude_none=True) if spec else None,
        memory=peak_memory(),
        policy=policy.name if policy else None,
        tasks=tasks,
        gates=demand.gates_of(policy, tasks) if policy else (),
        refused=tuple(refused),
        rungs=_rungs(recipe, encoder, steps, found),
        sensitivity=found,
        predictions=around,
    )


def _shown(recipe: Recipe, sensitive: bool, options: Options) -> Items:
    """What steps are tried on: a batch of scenes, or the recipe's own data where layers are to be compared."""
    spec = recipe.data.get("calibration") if sensitive else DataSource(source="scenes", samples=BATCH)
    if spec is None:
        hint = "add data: {calibration: {source: scenes, samples: 256}}"
        raise UsageError("layers are compared on calibration data, and there are none", "--sensitivity", hint)
    return provenance.items(spec, options.data_roots, options.progress)


def _sensitivity(recipe: Recipe, encoder: Encoder, shown: Items, reference: Path, options: Options) -> Sensitivity:
    """What each treated layer alone does to its tower's embedding."""
    items, fresh = sensitivity.held_out(recipe.data["calibration"], shown, options.data_roots, options.progress)
    return sensitivity.measure(encoder, items, reference, fresh, options.progress)


def _rungs(
    recipe: Recipe, encoder: Encoder, steps: tuple[StepPlan, ...], found: Sensitivity | None
) -> tuple[RungPlan, ...]:
    """What a rescue would try. Without a sensitivity nobody knows yet which layers are the worst."""
    if recipe.rescue is None:
        return ()
    named = rescue.layers(encoder)
    treated = tuple(tuple(named[row.tower, row.site] for row in step.rows) for step in steps)
    quantized = [layer.selector for step, rows in zip(steps, treated, strict=True) for layer in rows]
    worst = tuple(dict.fromkeys(quantized))
    if found is not None:
        worst = sensitivity.by_layer(found, {key: layer.selector for key, layer in named.items()})
    rungs = ladder.rungs(Start(recipe.steps, treated, worst, "calibration" in recipe.data))
    unknown = "the layers that damage the embedding most (`--sensitivity` measures which)"
    return tuple(RungPlan(each.name, unknown if each.in_float and found is None else each.what) for each in rungs)


def _without_data(recipe: Recipe, steps: tuple[StepPlan, ...]) -> Iterator[Refusal]:
    asking = [step.use for step in steps if step.calibrates and (step.use != STUDENT or TRAINING not in recipe.data)]
    if "calibration" not in recipe.data and asking:
        what, hint = f"{asking[0]} needs calibration data", "add data: {calibration: {source: scenes, samples: 256}}"
        yield Refusal("data.calibration", what, hint)


def _streamed(
    recipe: Recipe,
    seen: Described,
    told: Forecast,
    policy: Policy | None,
    tasks: tuple[TaskDemand, ...],
    refused: list[Refusal],
) -> Plan:
    """The plan of a model larger than memory: nothing is loaded or tried."""
    steps = tuple(
        StepPlan(use, any(row.form.calibrates for row in rows), tuple(map(_of_form, rows))) for use, rows in told.steps
    )
    spec = recipe.data.get("calibration")
    parameters = sum(told.parameters.values())
    return Plan(
        recipe=recipe.name,
        source=recipe.model.source,
        architecture=seen.architecture,
        parameters=parameters,
        steps=steps,
        sizes=tuple(Size(kind, n, 4 * n, told.artifact[kind], n, 1.0) for kind, n in told.parameters.items()),
        calibration=spec.model_dump(mode="json", exclude_none=True) if spec else None,
        memory=told.memory,
        policy=policy.name if policy else None,
        tasks=tasks,
        gates=demand.gates_of(policy, tasks) if policy else (),
        refused=(*refused, *map(_refusal, told.refused), *_without_data(recipe, steps)),
        disk=told.disk,
    )


def _of_form(row: Treated) -> Planned:
    site, form = row.site, row.form
    if not form.block:
        return Planned(row.tower, site.name, site.role, site.shape, "int8 static, a scale per output", form.bits)
    words = f"int{form.bits} in blocks of {form.block}{', zero points' if form.zero_points else ''}"
    words += ", inputs in int8" if form.compute == "int8" else ""
    columns = site.shape[0] if site.op == "MatMul" else math.prod(site.shape[1:])
    return Planned(row.tower, site.name, site.role, site.shape, words, form.bits, form.block, -columns % form.block)


def _rehearse(
    recipe: Recipe, encoder: Encoder, shown: Calibration, options: Options, refused: list[Refusal]
) -> Iterator[StepPlan]:
    """Apply every step to the towers with some data; what a step refuses is noted."""
    for at, step in enumerate(recipe.steps):
        asked: list[str] = []

        def feeds(kind: str, asked: list[str] = asked) -> Feeds:
            asked.append(kind)
            return shown.feeds()(kind)

        if trains(step.use) or step.use in SEARCHES:
            yield StepPlan(step.use, step.use in SEARCHES, ())
            continue
        try:
            told = Context(feeds, options.progress, recipe.seed, pairs=shown.pairs, reference=shown.folder)
            rows = _apply(step, encoder, replace(told, offline=options.offline))
        except UsageError as error:
            refused.append(_refusal(error, f"steps[{at}] {step.use}"))
            rows = ()
        yield StepPlan(step.use, bool(asked), rows)


def _apply(step: Step, encoder: Encoder, context: Context) -> tuple[Planned, ...]:
    sites = {(kind, site.name): site for kind, tower in encoder.towers.items() for site in tower.sites}
    report = names.load("compress.steps", step.use).apply(encoder, step.spec, context)
    return tuple(_planned(row, sites.get((row.tower, row.site)), encoder.towers[row.tower]) for row in report.rows)


def _planned(row: SiteReport, site: Site | None, tower: Tower) -> Planned:
    """A row of a step's report without what only its own calibration data can tell."""
    shape = site.shape if site else ()
    match tower.treatments.get(row.site):
        case BlockWeights() as held:
            zeros = "" if held.zero_points is None else ", zero points"
            words = f"{in_words(held)}{zeros}"
            padding = -held.columns % held.block
            return Planned(row.tower, row.site, row.role, shape, words, held.bits, held.block, padding)
        case BnbWeights() as held:
            words = (
                f"{held.weights}, a scale per output" if not held.block else f"{held.weights} in blocks of {held.block}"
            )
            return Planned(row.tower, row.site, row.role, shape, words, 4 if held.block else 8, held.block or None)
        case StaticInt8():
            return Planned(row.tower, row.site, row.role, shape, "int8 static, a scale per output", 8)
        case StaticFloat8():
            return Planned(row.tower, row.site, row.role, shape, "fp8 static, a scale per output", 8)
        case Float16():
            return Planned(row.tower, row.site, row.role, shape, "fp16", 16)
        case _:
            words = row.treatment.split(";")[0]
            return Planned(row.tower, row.site, row.role, shape, words)


def _export(target: Target, encoder: Encoder, folder: Path) -> Iterator[Refusal]:
    """Write the treated towers; a site that the target refuses is noted, left in float, and the rest written again."""
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            target.export(encoder, folder)
        except UsageError as error:
            yield _refusal(error)
            if not any(tower.treatments.pop(error.where, None) for tower in encoder.towers.values()):
                return
        else:
            return


def _sizes(counted: dict[str, tuple[int, int]], encoder: Encoder, reference: Path, candidate: Path) -> Iterator[Size]:
    before, after = model_bytes(reference), model_bytes(candidate) if candidate.is_dir() else {}
    for kind, (parameters, work) in counted.items():
        tower = encoder.towers[kind]
        made = [size for file, size in after.items() if Path(file).name.startswith(f"{kind}_")]
        floats = sum(size for file, size in before.items() if Path(file).name.startswith(f"{kind}_"))
        left = parameter_count(tower.graph)
        yield Size(
            kind, parameters, floats, sum(made) if made else None, left, cost.work(tower) / work if work else 1.0
        )


def _predictions(
    recipe: Recipe, encoder: Encoder, sizes: Sequence[Size], folders: tuple[Path, Path], options: Options
) -> tuple[Prediction, ...]:
    """What is left around the recipe's ratios; float towers are timed: what else the recipe does has no part in it."""
    if all(size.parameters == size.parameters_after for size in sizes):
        return ()
    reference, floats = folders
    bare = replace(encoder, towers={kind: replace(tower, treatments={}) for kind, tower in encoder.towers.items()})
    floats.mkdir()
    model.export_float(bare, floats)
    timed = prediction.times(reference, floats, options.progress)
    left = {
        each.tower: Left(each.parameters_after / each.parameters, each.work, timed.get(each.tower)) for each in sizes
    }
    return prediction.predictions(recipe.steps, left)


def _refusal(error: UsageError, where: str = "") -> Refusal:
    return Refusal(": ".join(filter(None, (where, error.where))), error.what, error.hint)
