"""What quantizing a model larger than memory will take, from its config and the headers of its files alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx

from compress.core import names
from compress.core.errors import ResourceExhausted, UsageError
from compress.models.loading import Described
from compress.models.shards import Shards
from compress.models.streaming import available_memory, free_space
from compress.models.tower import Site, Tower
from compress.pipeline.options import Options
from compress.pipeline.provenance import SAMPLES
from compress.recipe.schema import Recipe, Step
from compress.steps._selection import selected
from compress.steps.step import Form

TARGET: Final = "onnxruntime-cpu"
GATED: Final = 2.0
"""Times the float model that gates hold in memory: the reference, opened whole by ONNX Runtime."""

_BASE: Final = 1.1e9
"""Bytes that the process takes with its libraries and the graph of a large model."""

_CHILD: Final = 0.35e9
"""Bytes that a child takes with its libraries."""

_OPS: Final = {2: "MatMul", 4: "Conv"}


@dataclass(frozen=True, slots=True)
class Treated:
    """A site and how a step will hold it."""

    tower: str
    site: Site
    form: Form


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes at the peak of all processes, and on the disk before the artifact is settled; the artifact's own."""

    memory: int
    disk: int
    artifact: Mapping[str, int]
    parameters: Mapping[str, int]
    steps: tuple[tuple[str, tuple[Treated, ...]], ...]
    refused: tuple[UsageError, ...]

    def require(self, options: Options) -> None:
        """Raise the first thing that cannot be, and ResourceExhausted where disk or memory will not do."""
        if self.refused:
            raise self.refused[0]
        free = free_space(options.output)
        if self.disk > free:
            told = f"it takes about {self.disk / 1e9:.2f} GB on the disk, and {free / 1e9:.2f} GB are free"
            raise ResourceExhausted(told, str(options.output), "make room, or name another place with --output")
        if self.memory > available_memory():
            told = f"it takes about {self.memory / 1e9:.2f} GB, and {available_memory() / 1e9:.2f} GB are available"
            hint = "free some, leave out the widest layers, or use a step without calibration: quantize.int4_rtn"
            raise ResourceExhausted(f"memory: {told}", hint=hint)


def forecast(recipe: Recipe, seen: Described, shards: Shards) -> Forecast:
    """What a run of a recipe on a model will take. Nothing of the model but headers is read."""
    towers = sketch(seen, shards)
    refused = list(_refusals(recipe, shards))
    steps = []
    for at, step in enumerate(recipe.steps):
        try:
            steps.append((step.use, tuple(_treated(step, towers))))
        except UsageError as error:
            where = ": ".join(filter(None, (f"steps[{at}] {step.use}", error.where)))
            refused.append(UsageError(error.what, where, error.hint))
    last = {(each.tower, each.site.name): each for _, rows in steps for each in rows}
    parameters = {kind: _parameters(seen, kind, shards) for kind in towers}
    artifact = {kind: _bytes(kind, parameters[kind], last) for kind in towers}
    kept = sum(_kept(each) for each in last.values())
    moving = _activations(recipe, seen, towers) if any(each.form.calibrates for each in last.values()) else 0
    reference = 4 * shards.parameters if recipe.gated else 0
    return Forecast(
        memory=int(max((_peak(each, towers, moving) for _, rows in steps for each in rows), default=_BASE)),
        disk=int(1.1 * (kept + 2 * sum(artifact.values()) + 2 * moving + reference)) + (100 << 20),
        artifact=artifact,
        parameters=parameters,
        steps=tuple(steps),
        refused=tuple(refused),
    )


def sketch(seen: Described, shards: Shards) -> dict[str, Tower]:
    """The towers with their sites and no graph, from the names and shapes of the weights."""
    towers = {}
    for kind, parts in seen.family.towers.items():
        prefix = "" if parts.body else "model."
        found = []
        for name, place in shards.weights.items():
            path = prefix + name.removesuffix(".weight")
            role = parts.role(path) if name.endswith(".weight") else None
            if role is not None and len(place.shape) in _OPS:
                op = "Gather" if role[0] == "embedding" else _OPS[len(place.shape)]
                shape = place.shape[::-1] if op == "MatMul" else place.shape
                found.append(Site(path, role[0], role[1], op, path, name, shape))
        ordered = sorted(found, key=lambda site: (site.layer is not None, site.layer or 0))
        towers[kind] = Tower(kind, onnx.ModelProto(), tuple(ordered), parts.inputs, parts.output)
    return towers


def _refusals(recipe: Recipe, shards: Shards) -> Iterator[UsageError]:
    if recipe.targets != (TARGET,):
        hint = f"use target {TARGET}, or model.streaming: false where there is memory for five times the float model"
        yield UsageError("a model larger than memory is not written for this target", "targets", hint)
    if recipe.rescue is not None:
        hint = "leave it out, or model.streaming: false where there is memory for five times the float model"
        yield UsageError("a model larger than memory is not tried again and again", "rescue", hint)
    needed = GATED * 4 * shards.parameters
    if recipe.gated and needed > available_memory():
        told = f"gates open the float reference whole, which takes about {needed / 1e9:.1f} GB of memory"
        hint = "use `policy: none` with a reason: what the blocks lost is measured one by one and reported"
        yield UsageError(f"{told}, and {available_memory() / 1e9:.1f} GB are available", "policy", hint)


def _treated(step: Step, towers: Mapping[str, Tower]) -> Iterator[Treated]:
    method = names.load("compress.steps", step.use)
    if not hasattr(method, "form"):
        able = ", ".join(name for name in _methods() if hasattr(names.load("compress.steps", name), "form"))
        hint = f"use one of {able}, or model.streaming: false where there is memory for five times the float model"
        raise UsageError("works on a whole model at once, and this one is larger than memory", hint=hint)
    form: Form = method.form(step.spec)
    for tower, site in selected(towers, step.spec, method.DEFAULT):
        if site.op == "Gather" and form.calibrates:
            raise UsageError("an embedding table has no input to calibrate", site.name, "use quantize.int8_rtn")
        yield Treated(tower.kind, site, form)


def _methods() -> Iterator[str]:
    from compress.steps import method_names

    return (name for name in method_names() if name.startswith("quantize."))


def _matrix(site: Site) -> tuple[int, int]:
    """Outputs and inputs of a site's weight as it is rounded."""
    if site.op == "MatMul":
        return site.shape[1], site.shape[0]
    return site.shape[0], math.prod(site.shape[1:])


def _stored(each: Treated) -> int:
    """Bytes in the artifact."""
    rows, columns = _matrix(each.site)
    if not each.form.block:
        return rows * columns * each.form.bits // 8 + 4 * rows
    blocks = rows * -(-columns // each.form.block)
    return blocks * (each.form.block * each.form.bits // 8 + 4 + each.form.zero_points)


def _kept(each: Treated) -> int:
    """Bytes in the checkpoint, which holds a byte for each number."""
    return _stored(each) + math.prod(_matrix(each.site))


def _bytes(kind: str, parameters: int, last: Mapping[tuple[str, str], Treated]) -> int:
    own = [each for (tower, _), each in last.items() if tower == kind]
    return 4 * (parameters - sum(math.prod(each.site.shape) for each in own)) + sum(map(_stored, own))


def _parameters(seen: Described, kind: str, shards: Shards) -> int:
    """Numbers of a tower: of all weights below its body and projection."""
    parts = seen.family.towers[kind]
    below = tuple(f"{name}." for name in (parts.body, parts.projection) if name)
    own = (place for name, place in shards.weights.items() if not parts.body or name.startswith(below))
    return sum(math.prod(place.shape) for place in own if "float" in place.stored)


def _peak(each: Treated, towers: Mapping[str, Tower], moving: int) -> float:
    """Bytes while a site is treated: its weight a few times over, and what its calibration takes."""
    rows, columns = _matrix(each.site)
    weight = 4 * rows * columns
    if not each.form.calibrates:
        return _BASE + 5 * weight
    layer = [site for site in towers[each.tower].sites if site.layer == each.site.layer]
    block = sum(4 * math.prod(site.shape) for site in layer)
    if not each.form.block:
        return _BASE + max(5 * weight, _CHILD + 2 * block + moving / 8)
    moments = sum(8 * _matrix(site)[1] ** 2 for site in layer if site.role != "attn.qkv") + 8 * columns**2
    return _BASE + max(9 * weight + 7 * 8 * columns**2 + moments, _CHILD + 2 * block + 2 * moments + moving / 8)


def _activations(recipe: Recipe, seen: Described, towers: Mapping[str, Tower]) -> int:
    """Bytes of the stream between two blocks for all calibration items, of the largest tower."""
    spec = recipe.data.get("calibration")
    samples = SAMPLES if spec is None else spec.samples or SAMPLES
    made = [0]
    for kind, tower in towers.items():
        told: Any = seen.config.get(f"{kind}_config") or seen.config
        width = max((_matrix(site)[1] for site in tower.sites if site.role == "attn.qkv"), default=0)
        made.append(4 * samples * width * _tokens(told, kind))
    return max(made)


def _tokens(config: Mapping[str, Any], kind: str) -> int:
    if kind == "text":
        return int(config.get("max_position_embeddings", 77))
    side, patch = config.get("image_size", 224), config.get("patch_size", 16)
    high, wide = side if isinstance(side, list) else (side, side)
    patches = patch if isinstance(patch, list) else (patch, patch)
    return int(high // patches[0]) * int(wide // patches[1]) + 1
