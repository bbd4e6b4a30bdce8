"""One student for one tower: from the step's options to a tower that fits the model, or the reason why none does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.agreement import require_same_tokens, require_vocabulary
from compress.data.making import KINDS
from compress.data.preprocess import open_preprocess
from compress.data.runtime import Runtime, TowerFile, Towers, Transformers
from compress.models import student_base, student_config, students
from compress.models.graph import initializers, parameter_count
from compress.models.source import PROCESSING, Access
from compress.models.student_base import Base
from compress.models.student_inputs import image_shape
from compress.models.students import Student
from compress.models.students_origin import kin, standing
from compress.models.tower import Encoder, Tower
from compress.steps.distill import _space
from compress.steps.distill.student import Spec
from compress.steps.embedding import embeddings
from compress.steps.step import Context, Feeds, SiteReport

SAMPLES: Final = 2048
"""Samples that a map is fitted on at most."""

_BATCH: Final = 32
_LONG: Final = 2000
"""Words of a text that no tokenizer leaves whole."""

How = Literal["none", "procrustes", "linear"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A tower in waiting: what to put, what its sites are reported as, and the summary."""

    tower: Tower
    rows: tuple[SiteReport, ...]
    told: str

    def put(self, old: Tower) -> None:
        """Make the old tower this one, in place."""
        old.graph, old.sites, old.treatments = self.tower.graph, self.tower.sites, {}
        old.config = self.tower.config


def replacement(encoder: Encoder, kind: str, spec: Spec, context: Context) -> Replacement:
    """A student for one tower. Raises UsageError where there cannot be one."""
    old = encoder.towers[kind]
    if old.streamed:
        raise UsageError("a model larger than memory gets no students", "model.streaming")
    base = _base(encoder, kind, spec, context)
    config = _config(base, spec, old)
    _require_inputs(config, kind, old, base, context)
    if encoder.origin is not None and encoder.origin.pruned and not kin(encoder, kind, config.model_type):
        hint = f"start from {encoder.origin.structure.origin.source}"  # else nothing would say what this one has seen
        raise UsageError("a pruned model gets no students of another architecture", "config.model_type", hint)
    made = students.build(encoder, kind, base, config, (spec.start == "inherited", spec.pooling, context.seed))
    _require_smaller(made, (context.teacher or encoder).towers[kind])
    if spec.start == "inherited" and "start" in spec.model_fields_set and not made.taken:
        raise UsageError(f"nothing of {base.told} fits the student", "start", "leave it out, or say random")
    mapped = _map(made, encoder, spec, context)
    tower = made.tower()
    return Replacement(tower, tuple(_rows(old, tower)), _told(tower, made, base, mapped))


def lost(encoder: Encoder) -> str:
    """What an artifact will not hold, in words: the model in torch, where no class of transformers is such a one."""
    if encoder.origin is not None and standing(encoder).origin is None:
        return "; the artifact holds ONNX towers only, for no class of transformers is this model"
    return ""


def _base(encoder: Encoder, kind: str, spec: Spec, context: Context) -> Base:
    if spec.source is not None:
        return student_base.source_of(spec.source, kind, Access(spec.revision, context.offline))
    named = spec.config.get("model_type")
    return student_base.base_of(encoder, kind, None if named is None else str(named))


def _config(base: Base, spec: Spec, old: Tower) -> Any:
    config = base.config if spec.size is None else student_config.shrunk(base.config, spec.size)
    changes = {key: list(value) if isinstance(value, tuple) else value for key, value in spec.config.items()}
    config = student_config.changed(config, {key: value for key, value in changes.items() if key != "model_type"})
    if old.kind == "vision":
        student_config.require_image(config, image_shape(old))
    return config


def _require_inputs(config: Any, kind: str, old: Tower, base: Base, context: Context) -> None:
    """Raise UsageError where a text student cannot read what the model's preprocessing makes."""
    if kind != "text" or context.reference is None:
        return
    if base.folder is not None:
        _require_same_tokenizer(base.folder, old, context.reference)
    if isinstance(rows := getattr(config, "vocab_size", None), int):
        require_vocabulary(context.reference, rows)
    most = getattr(config, "max_position_embeddings", None)
    ids, _ = open_preprocess(context.reference, runtime.read(context.reference)).texts(["word " * _LONG])
    if isinstance(most, int) and most < ids.shape[1] < _LONG:
        raise UsageError(
            f"the student has {most} places for tokens, and the preprocessing makes {ids.shape[1]}",
            "config.max_position_embeddings",
        )


def _require_same_tokenizer(folder: Path, old: Tower, reference: Path) -> None:
    names = [name for name in PROCESSING if (folder / name).is_file()]
    if not any(name.startswith(("tokenizer", "vocab", "spiece")) for name in names):
        return
    with tempfile.TemporaryDirectory() as made:
        theirs = Path(made)
        for name in (*names, "config.json"):
            shutil.copyfile(folder / name, theirs / name)
        text = TowerFile(file="text.onnx", input=old.inputs[0], output=old.output)
        told = Runtime(
            target="none", towers=Towers(text=text), preprocess=Transformers(padding="longest"), logit_scale=1
        )
        runtime.write(theirs, told)
        try:
            require_same_tokens(theirs, reference)
        except UsageError as error:
            raise UsageError(
                error.what, f"source {folder.name}", "take a source with the teacher's tokenizer"
            ) from None


def _map(made: Student, encoder: Encoder, spec: Spec, context: Context) -> str:
    """Fit the map that is asked for and fold it into the projection; returns what was done, in words."""
    width, native = made.projection.out_features, made.native
    own = made.projection.in_features if native is None else len(native)
    how: How = spec.map or ("linear" if made.taken and native is not None and own != width else "none")
    if how == "none":
        return ""
    kind = made.teacher.kind
    feeds = _samples(kind, context)
    again = replace(context, feeds=lambda _: iter(feeds))
    said = embeddings((context.teacher or encoder).towers[kind], [{}], again)[0]
    pooled = made.pooled(feeds)
    states = pooled if native is None else pooled @ native.T
    found, cosine = _space.fitted(states, said, how, encoder.normalized)
    weight: NDArray[Any] = found.T if native is None else found.T @ native
    made.project(weight.astype(np.float32))
    return (
        f", {how} map from {own} to {width} numbers by {len(said):,} samples, cosine {cosine:.4f} on a quarter left out"
    )


def _samples(kind: str, context: Context) -> list[Mapping[str, NDArray[Any]]]:
    """Inputs of a tower from the training data where they hold some for it, else from what calibrates."""
    training = context.training
    made: list[Mapping[str, NDArray[Any]]] = []
    if training is not None and kind in KINDS[training.use]:
        epochs = (training.batches(epoch, _BATCH) for epoch in range(training.feeding.views))
        found: Feeds = (batch.feeds[kind] for epoch in epochs for batch in epoch if kind in batch.feeds)
    elif context.feeds is not None:
        found = context.feeds(kind)
    else:
        hint = "add data: {calibration: {source: scenes, samples: 256}}"
        raise UsageError("a map needs calibration or training data", "data.calibration", hint)
    count = 0
    for feed in found:
        made.append(feed)
        count += len(next(iter(feed.values())))
        if count >= SAMPLES:
            break
    return made


def _require_smaller(made: Student, teacher: Tower) -> None:
    own, other = made.parameters, parameter_count(teacher.graph)
    if own > other:
        raise UsageError(
            f"the {teacher.kind} student has {own:,} weights and its teacher {other:,}",
            "config",
            "a student is smaller than its teacher",
        )


def _rows(old: Tower, new: Tower) -> Iterator[SiteReport]:
    """The new sites, beside the old ones of the same names."""
    before = {site.name: 4 * int(np.prod(site.shape)) for site in old.sites}
    held = initializers(new.graph)
    for site in new.sites:
        size = 4 * int(np.prod(held[site.weight].dims))
        yield SiteReport(new.kind, site.name, site.role, "student", before.get(site.name, 0), size, 0.0)


def _told(tower: Tower, made: Student, base: Base, mapped: str) -> str:
    """`text student: clip_text_model, 2 layers, 96 wide, 0.2 of 0.6 M weights; 18 of 34 tensors of the teacher`."""
    config = tower.config or {}
    sizes = [
        f"{config[key]} {word}"
        for key, word in ((student_config.DEPTH, "layers"), (student_config.WIDTH, "wide"))
        if key in config
    ]
    counts = parameter_count(tower.graph), parameter_count(made.teacher.graph)
    kept = f"{made.taken} of {len(made.shapes)} tensors of {base.told}" if made.taken else "all weights drawn"
    words = ", ".join([str(config["model_type"]), *sizes, f"{counts[0]:,} of {counts[1]:,} weights"])
    return f"{tower.kind} student: {words}, {kept}{mapped}"
