"""Students of another shape: a tower of any Hugging Face config in torch, and the weights that it begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.core.errors import UsageError
from compress.models import student_config, students_origin
from compress.models.families.family import TowerParts
from compress.models.graph import strip_nodes
from compress.models.inherited import inherited
from compress.models.loading import family_of
from compress.models.sites import by_module_path, by_topology
from compress.models.student_base import Base
from compress.models.student_body import PooledBody, Pooling
from compress.models.student_export import marked, placed, told_apart
from compress.models.student_inputs import example, width_of
from compress.models.torch_export import TowerWrapper, difference, example_of, exported
from compress.models.tower import Encoder, Tower

UNUSED: Final = "pooler."
"""What some bodies have besides, and no tower computes with."""

_NEAR: Final = 1e-4
"""How far the exported tower may be from the module, as a share of its largest number."""


@dataclass
class Student:
    """A student's tower in torch, in place of `teacher`.

    `kin`: it is of the model's own architecture, and a Hugging Face model with it. Its own weights are those of `body`
    whose names begin with `prefix`; `taken` of them are inherited. `native` (width, hidden) is the projection that goes
    with what is inherited, None where there is none.
    """

    model: nn.Module
    body: nn.Module
    prefix: str
    parts: TowerParts
    config: Any
    teacher: Tower
    normalize: bool
    kin: bool
    examples: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = field(repr=False)
    native: NDArray[Any] | None = None
    taken: int = 0

    @property
    def projection(self) -> nn.Linear:
        """What turns pooled states (batch, hidden) into embeddings."""
        found = getattr(self.model, self.parts.projection)
        assert isinstance(found, nn.Linear)
        return found

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its own weights, without the projection and what nobody reads."""
        held = self.body.state_dict()
        return {
            name: tuple(value.shape)
            for name, value in held.items()
            if name.startswith(self.prefix) and not name.startswith(UNUSED)
        }

    @property
    def parameters(self) -> int:
        """How many weights it has, with its projection."""
        held = self.body.state_dict()
        own = [held[name] for name in self.shapes if held[name].is_floating_point()]
        return sum(weight.numel() for weight in (self.projection.weight, *own))

    def project(self, weight: NDArray[Any]) -> None:
        """Give the projection a weight (width, hidden)."""
        with torch.no_grad():
            self.projection.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, np.float32)))

    def pooled(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
        """What comes before the projection, (samples, hidden)."""
        body = TowerWrapper(self.model, replace(self.parts, projection="", tokens=None), normalize=False).eval()
        made = []
        with torch.no_grad():
            for feed in feeds:
                made.append(body(*(torch.from_numpy(np.asarray(feed[name])) for name in self.parts.inputs))[0].numpy())
        return np.concatenate(made)

    def tower(self) -> Tower:
        """The float tower, its weights under their names in the module and nothing under a name of the teacher's.

        Raises UsageError where the export does not compute what the module does.
        """
        wrapper = TowerWrapper(self.model, self.parts, self.normalize).eval()
        real = {name: value.clone() for name, value in wrapper.state_dict().items()}
        distinct = marked(real)
        wrapper.load_state_dict(distinct)
        try:
            graph = exported(wrapper, self.parts, self.examples[0])
        except Exception as error:  # the exporter raises whatever a model's code stumbles over
            raise UsageError(f"a {self.config.model_type} cannot be exported: {error}", "config") from error
        wrapper.load_state_dict(real)
        sites = by_module_path(graph, self.parts) if self.kin else by_topology(graph)
        strip_nodes(graph)
        renamed = placed(graph, distinct, real)
        told_apart(graph, {self.parts.output: self.parts.output, self.parts.tokens: self.teacher.tokens})
        sites = tuple(replace(site, weight=renamed.get(site.weight, site.weight)) for site in sites)
        with torch.no_grad():
            largest = float(wrapper(*self.examples[1])[0].abs().max())
        apart = difference(wrapper, graph, self.parts, self.examples[1])
        if not apart <= _NEAR * largest:
            raise UsageError(f"the exported {self.config.model_type} computes something else, by {apart:g}", "config")
        told = student_config.written(self.config)
        old = self.teacher
        return Tower(old.kind, graph, sites, old.inputs, old.output, tokens=old.tokens, config=told)


def build(encoder: Encoder, kind: str, base: Base, config: Any, how: tuple[bool, Pooling | None, int]) -> Student:
    """A student of a config in place of one tower, with the weights of a base as far as they fit.

    `how`: whether weights are inherited, how tokens are pooled where the architecture is not the model's own (None: as
    the model does it), and the seed of the weights that are drawn.
    """
    inherit, pooling, seed = how
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if students_origin.kin(encoder, kind, config.model_type):
                made = _kin(encoder, kind, config)
            else:
                made = _foreign(encoder, kind, config, pooling or _pooling(encoder, kind))
        except UsageError:
            raise
        except Exception as error:  # transformers raises whatever a config makes its modules stumble over
            raise UsageError(f"no {config.model_type} can be made of this config: {error}", "config") from error
    if inherit:
        _inherit(made, base)
    return made


def _kin(encoder: Encoder, kind: str, config: Any) -> Student:
    parts = family_of(encoder.architecture, Path()).towers[kind]
    whole = student_config.config_of(
        students_origin.described(encoder, {kind: student_config.written(config)}), encoder.source
    )
    model = getattr(transformers, encoder.architecture)._from_config(whole, attn_implementation="eager").float().eval()
    own = getattr(model, parts.body).config
    examples = example_of(own, kind), example_of(own, kind, batch=5, seed=1)
    prefix, tower = f"{parts.body}.", encoder.towers[kind]
    return Student(model, model, prefix, parts, config, tower, encoder.normalized, True, examples)


def _foreign(encoder: Encoder, kind: str, config: Any, pooling: Pooling) -> Student:
    tower = encoder.towers[kind]
    called = ("pixel_values",) if kind == "vision" else ("input_ids", "attention_mask")
    inner = transformers.AutoModel.from_config(config, attn_implementation="eager").float().eval()
    body, model = PooledBody(inner, dict(zip(tower.inputs, called, strict=False)), pooling), nn.Module()
    parts = TowerParts("body", "head", tower.inputs, tower.output, {}, tokens=tower.tokens and "last_hidden_state")
    examples = example(tower, config, 2, 0), example(tower, config, 5, 1)
    with torch.no_grad():
        named = dict(zip(tower.inputs, examples[0], strict=True))
        hidden = body(**named).pooler_output.shape[-1]
    model.add_module("body", body)
    model.add_module("head", nn.Linear(hidden, width_of(tower, examples[0]), bias=False))
    return Student(model, inner, "", parts, config, tower, encoder.normalized, False, examples)


def _pooling(encoder: Encoder, kind: str) -> Pooling:
    """The first token where the model's family says so, else the mean."""
    if encoder.origin is None:
        return "mean"
    return "first" if family_of(encoder.architecture, Path()).towers[kind].pooled == "first_token" else "mean"


def _inherit(made: Student, base: Base) -> None:
    """Give a student the weights of its base, in place; a head of its own begins as one that adds none."""
    held = base.weights()
    own, other = (getattr(each, student_config.DEPTH, None) for each in (made.config, base.config))
    depths = None if own is None or other is None else (own, other)
    found = inherited(made.shapes, held, depths)
    made.body.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in found.items()}, strict=False)
    made.taken = len(found)
    if not found:
        return
    if not made.kin:
        hidden = made.projection.in_features
        made.native = np.eye(hidden, dtype=np.float32)
    elif (weight := held.get(f"{made.parts.projection}.weight")) is not None:
        made.native = weight if weight.shape[1] == made.projection.in_features else None
    if made.native is not None and made.native.shape == tuple(made.projection.weight.shape):
        made.project(made.native)
