"""The Hugging Face model that an encoder with students is: its config, and what its folder's weights come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.models import structure, student_config
from compress.models.families.family import TowerParts
from compress.models.graph import initializers
from compress.models.loading import family_of
from compress.models.structure import Heads, Module, Origin
from compress.models.tower import Encoder, Tower


def standing(encoder: Encoder) -> Encoder:
    """The encoder as its files tell of it: config and origin of its students in place of the model's own.

    It has no origin where a student is of another architecture: no class of transformers is such a model.
    """
    students = {kind: tower for kind, tower in encoder.towers.items() if tower.config is not None}
    if not students or "config.json" not in encoder.files:
        return encoder
    own = all(kin(encoder, kind, str((tower.config or {})["model_type"])) for kind, tower in students.items())
    told = described(encoder, {kind: dict(tower.config or {}) for kind, tower in students.items()})
    if not own:
        told.pop("architectures", None)
    content = (json.dumps(told, indent=2, sort_keys=True) + "\n").encode()
    files = {**encoder.files, "config.json": content}
    return replace(encoder, files=files, origin=_origin(encoder, students, told) if own else None)


def kin(encoder: Encoder, kind: str, model_type: str) -> bool:
    """Whether a tower of this type leaves the model one of its own architecture."""
    if encoder.origin is None or not family_of(encoder.architecture, Path()).towers[kind].body:
        return False
    told = json.loads(encoder.files["config.json"])
    return bool(told.get(f"{kind}_config", told).get("model_type") == model_type)


def described(encoder: Encoder, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The model's config with those of students in it."""
    told: dict[str, Any] = json.loads(encoder.files["config.json"])
    for kind, config in configs.items():
        if isinstance(told.get(f"{kind}_config"), dict):
            told[f"{kind}_config"] = dict(config)
        else:
            kept = {key: told[key] for key in ("architectures", *student_config.GIVEN) if key in told}
            told = {**config, **kept}
    return told


def _origin(encoder: Encoder, students: Mapping[str, Tower], told: Mapping[str, Any]) -> Origin:
    assert encoder.origin is not None
    before, model = encoder.origin, _hollow(encoder.architecture, told)
    parts = family_of(encoder.architecture, Path()).towers
    replaced = tuple(f"{name}." for kind in students for name in (parts[kind].body, parts[kind].projection) if name)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if name.startswith(replaced)}

    def weights() -> structure.Weights:
        left = {name: value for name, value in before.weights().items() if not name.startswith(replaced)}
        return {**left, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}

    def kept(paths: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in paths.items() if not f"{path}.".startswith(replaced)}

    carried = {kind: names for kind, names in before.carried.items() if kind not in students}
    loaded, cut = kept(before.loaded), kept(before.cut)
    for kind, tower in students.items():
        carried[kind] = {name: (name,) for name in initializers(tower.graph) if name in shapes}
        loaded |= _linear(model, parts[kind])
        cut |= _heads(tower)
    old = before.structure
    changes = {
        "modules": kept(old.modules),
        "attentions": kept(old.attentions),
        "removed": tuple(path for path in old.removed if not f"{path}.".startswith(replaced)),
    }
    return Origin(old.model_copy(update=changes), True, weights, loaded, cut, carried)


def _hollow(architecture: str, told: Mapping[str, Any]) -> Any:
    """The model without memory for its weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, architecture)(student_config.config_of(told, "config.json"))


def _linear(model: Any, parts: TowerParts) -> dict[str, Module]:
    """The linear layers of a tower as its config makes them."""
    from torch import nn

    return {
        path: Module(outputs=layer.out_features, inputs=layer.in_features, bias=layer.bias is not None)
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and parts.role(path) is not None
    }


def _heads(tower: Tower) -> dict[str, Heads]:
    """How the attentions of a student were cut when it was made."""
    told = tower.config or {}
    heads, width = told[student_config.HEADS], told[student_config.WIDTH]
    cut = Heads(heads=heads, query_width=width // heads, value_width=width // heads)
    return dict.fromkeys(structure.attentions({tower.kind: tower}), cut)
