"""Running a recipe: the story of the README as one function."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from compress import targets
from compress.artifact import layout, signing
from compress.artifact.staging import Staging, Store
from compress.bench import proof
from compress.core import names
from compress.core.errors import UsageError
from compress.gates import policy_file as policies
from compress.gates.decision import decide
from compress.gates.policy import load_policy
from compress.gates.waiving import waive
from compress.models.tower import Encoder, copied
from compress.pipeline import blockwise, checkpoint, evidence, ledger, model, provenance, rescue, search, streamed
from compress.pipeline.blocks import Blocks
from compress.pipeline.calibration import Calibration
from compress.pipeline.checkpoint import Checkpoint
from compress.pipeline.measurement import Subject, measure
from compress.pipeline.options import Options
from compress.pipeline.training import Shown, teacher, trained
from compress.recipe.load import dump
from compress.recipe.schema import Recipe, StepSpec
from compress.recipe.sources import NamedModel, OnnxModel, TokenizerText, place
from compress.report.document import Document
from compress.steps.step import Context, StepReport, scaled
from compress.targets import Target


@dataclass(frozen=True, slots=True)
class Result:
    """Where the artifact was settled, and its report."""

    path: Path
    report: Document


def run(recipe: Recipe, file: Path, options: Options) -> Result:
    """Load, compress, export, measure, decide, settle. `file` is where the recipe was read from."""
    policy = load_policy(policy_file(recipe, file)) if recipe.gated else None
    if policy is None and options.waivers is not None:
        raise UsageError("there is nothing to waive: the recipe says `policy: none`", "--waivers")
    told = portable(recipe)
    target = target_of(recipe)
    target.ready()
    with Store(options.output).stage(recipe.name) as staging:
        streamed.require_possible(recipe, options)
        encoder = model.load(recipe.model, file, options.offline, options.data_roots)
        against = model.original(encoder, options.offline, options.data_roots)
        reference = streamed.reference(recipe, against, options)
        shown = _shown(recipe, against, reference, options)
        before = copied(encoder) if recipe.rescue else None
        located = _located(recipe, file)
        steps = apply_steps(located, encoder, reference, shown, options)
        encoder = scaled(encoder, steps)
        rescued = None
        if policy:
            seen = provenance.with_parent(provenance.seen(recipe.data, options, shown.items), recipe.model, options)
            if before is not None:
                again = partial(_apply_rung, reference=reference, shown=shown, options=options)
                scene = rescue.Scene(located, policy, target, reference, shown.items, seen, again, options)
                (encoder, steps), rescued = rescue.walk(scene, before, (encoder, steps))
        target.export(encoder, staging.folder)
        _write_recipe(staging, told, policy_file(recipe, file) if recipe.gated else None)
        digest = staging.scan().subject
        measured = None
        if policy:
            subject = Subject(reference, staging.folder, encoder, seen)
            measured = measure(policy, subject, recipe.seed, options)
        verdict = waive(decide(policy, measured.metrics, digest), options.waivers) if policy and measured else None
        attempts = ledger.record(options.output, policy, verdict, recipe.name) if policy and verdict else []
        proofs = proof.matrix(staging.folder, measured.one_item, options.progress) if measured else ()
        waivers = options.waivers
        done = evidence.Run(told, encoder, reference, steps, verdict, measured, attempts, waivers, proofs, rescued)
        if encoder.shards is not None and not recipe.gated:
            told_blocks = blockwise.measure(encoder, staging.folder, shown.items, reference, options)
            done = replace(done, blockwise=told_blocks)
        report = evidence.write(staging, done, digest)
        if options.signing is not None:
            signing.sign(staging, options.signing)
        settled = staging.settle(verdict.status if verdict else "ungated", options.replace)
        checkpoint.discard(checkpoint.place(options.output, recipe.name))
        return Result(settled, report)


def follow(recipe: Recipe, file: Path, options: Options) -> None:
    """Apply the steps beside the first of several processes, which does all the rest; they meet where they train.

    Raises UsageError for a recipe with a rescue, whose other attempts only the first process knows of.
    """
    if recipe.rescue:
        raise UsageError("a recipe with a rescue runs in one process", "rescue", "start it without `accelerate launch`")
    encoder = model.load(recipe.model, file, options.offline, options.data_roots)
    against = model.original(encoder, options.offline, options.data_roots)
    with tempfile.TemporaryDirectory() as made:
        reference = model.write_reference(against, Path(made))
        shown = _shown(recipe, against, reference, options)
        apply_steps(_located(recipe, file), encoder, reference, shown, options)


def _shown(recipe: Recipe, against: Encoder, reference: Path, options: Options) -> Shown:
    """Everything that the recipe shows to its steps."""
    return Shown(
        provenance.load(recipe, options.data_roots, options.progress),
        trained(recipe, reference, options),
        teacher(recipe, against),
    )


def target_of(recipe: Recipe) -> Target:
    """The recipe's target. Raises UsageError where a step's method says that it serves others only."""
    if len(recipe.targets) > 1:
        raise UsageError("an artifact is made for one target", "targets", "write a recipe for each")
    target = recipe.targets[0]
    for at, step in enumerate(recipe.steps):
        known = getattr(names.load("compress.steps", step.use), "TARGETS", (target,))
        if target not in known:
            instead = getattr(names.load("compress.steps", step.use), "INSTEAD", "another method")
            hint = f"use target {' or '.join(known)}, or {instead}"
            raise UsageError(f"{target} cannot compute with what {step.use} makes", f"steps[{at}].use", hint)
    return targets.load(target)


def apply_steps(
    recipe: Recipe, encoder: Encoder, reference: Path, shown: Shown, options: Options
) -> tuple[StepReport, ...]:
    """Apply the recipe's steps in the order written, after those that a checkpoint holds already."""
    items, training = shown.items.get("calibration"), shown.training
    calibration = Calibration(items, reference) if items else None
    context = Context(
        calibration.feeds() if calibration else None,
        options.progress,
        recipe.seed,
        training,
        shown.teacher,
        options.cache,
        resume=options.resume,
        pairs=calibration.pairs if calibration else None,
        reference=reference,
        offline=options.offline,
    )
    context = search.able(context, recipe, reference, options)
    follows = checkpoint.fingerprint(recipe, reference, items.digest if items else None)
    if training is not None:
        follows["training data"] = training.digest
    place = checkpoint.place(options.output, recipe.name)
    kept: Checkpoint | Blocks
    if encoder.shards is None:
        kept = Checkpoint(place, follows, encoder, options.progress)
    else:
        kept = Blocks(place, follows, encoder, options.progress)
        context = kept.context(context)
    reports = kept.start(options.resume) if options.resume or not options.follower else []
    with contextlib.closing(training) if training is not None else contextlib.nullcontext():
        for at, step in enumerate(recipe.steps[len(reports) :], start=len(reports)):
            mine = replace(context, work=kept.folder / f"step{at}")
            report: StepReport = names.load("compress.steps", step.use).apply(encoder, step.spec, mine)
            options.progress.say(f"{report.use}: {report.summary}")
            reports.append(report)
            if not options.follower:
                kept.save(reports)
    return tuple(reports)


def _apply_rung(
    rung: Recipe, encoder: Encoder, reference: Path, shown: Shown, options: Options
) -> tuple[StepReport, ...]:
    """Apply the steps of a rung. Raises UsageError where the target cannot compute with what one of them makes."""
    target_of(rung)
    return apply_steps(rung, encoder, reference, shown, options)


def policy_file(recipe: Recipe, file: Path) -> Path:
    """The file of the recipe's policy: beside the recipe if it is there, else from the working directory or by name."""
    beside = file.parent / recipe.policy
    return beside if beside.is_file() else policies.find_policy(recipe.policy)


def _located(recipe: Recipe, file: Path) -> Recipe:
    """The recipe with its policy named by the file that was found for it."""
    return recipe.model_copy(update={"policy": str(policy_file(recipe, file).resolve())}) if recipe.gated else recipe


def _write_recipe(staging: Staging, recipe: Recipe, policy: Path | None) -> None:
    staging.write(layout.RECIPE, dump(recipe).encode())
    if policy is not None:
        staging.write(layout.POLICY, policies.written(policy))


def portable(recipe: Recipe) -> Recipe:
    """The recipe as an artifact records it: a model folder or policy file keeps its name, not where it lay here."""
    changes: dict[str, object] = {}
    if isinstance(recipe.model, NamedModel) and place(recipe.model.source) == "folder":
        changes["model"] = recipe.model.model_copy(update={"source": f"./{_last(recipe.model.source)}"})
    if isinstance(recipe.model, NamedModel):  # how it was read changes nothing of what was made
        changes["model"] = changes.get("model", recipe.model).model_copy(update={"streaming": None})  # type: ignore[attr-defined]
    if isinstance(recipe.model, OnnxModel):
        files = {kind: getattr(recipe.model, kind) for kind in ("vision", "text")}
        short: dict[str, object] = {
            kind: _last(path) for kind, path in files.items() if path and Path(path).is_absolute()
        }
        text = recipe.model.preprocess.text
        if isinstance(text, TokenizerText) and Path(text.tokenizer).is_absolute():
            text = text.model_copy(update={"tokenizer": _last(text.tokenizer)})
            short["preprocess"] = recipe.model.preprocess.model_copy(update={"text": text})
        changes["model"] = recipe.model.model_copy(update=short)
    if recipe.gated and Path(recipe.policy).is_absolute():
        changes["policy"] = _last(recipe.policy)
    data = {
        name: each.model_copy(update={"source": f"./{_last(each.source)}"})
        for name, each in recipe.data.items()
        if place(each.source) == "folder" and Path(each.source).is_absolute()
    }
    steps = tuple(step.model_copy(update={"spec": _portable(step.spec)}) for step in recipe.steps)
    return recipe.model_copy(update={**changes, "data": {**recipe.data, **data}, "steps": steps})


def _portable(spec: StepSpec) -> StepSpec:
    """A step that names a folder keeps its name."""
    source = getattr(spec, "source", None)
    if isinstance(source, str) and place(source) == "folder":
        return spec.model_copy(update={"source": f"./{_last(source)}"})
    return spec


def _last(path: str) -> str:
    return Path(path).expanduser().resolve().name
