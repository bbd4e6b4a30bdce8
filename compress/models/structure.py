"""Pruned Hugging Face models: `compress/structure.json`, which says what differs from the config, and their weights.

A config knows one width for all layers. Where layers agree, the config says their width and plain transformers loads
the folder; the rest stands in structure.json, from which `fitted` builds the modules before the weights are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.models.attention import attention
from compress.models.graph import array, initializers
from compress.models.junctions import bias_of
from compress.models.surgery import linear
from compress.recipe.fields import PositiveInt, Strict, Text, Version

if TYPE_CHECKING:
    from compress.models.tower import Encoder, Site, Tower

Weights = Mapping[str, NDArray[np.float32]]
FC1: Final = "mlp.fc1"

NORMS: Final = {"self_attn": "layer_norm1", "mlp": "layer_norm2"}
"""A part of a block that adds to the stream -> the norm before it, which goes with it."""


class Module(Strict):
    """The sizes of a linear layer."""

    outputs: PositiveInt
    inputs: PositiveInt
    bias: bool


class Heads(Strict):
    """How an attention is cut into heads; `scale` of its logits stays that of the model that was pruned."""

    heads: PositiveInt
    query_width: PositiveInt
    value_width: PositiveInt


class Model(Strict):
    """The model that was pruned: what a recipe calls it."""

    source: Text
    revision: str | None = None


class Structure(Strict):
    """What differs from the model that was pruned: linear layers and attentions, by module path.

    `removed` are paths of modules that are gone: attentions and MLPs of blocks, each with the norm before it.
    """

    version: Version
    architecture: Text
    origin: Model
    modules: dict[str, Module] = Field(default_factory=dict)
    attentions: dict[str, Heads] = Field(default_factory=dict)
    removed: tuple[Text, ...] = Field((), strict=False)

    def to_bytes(self) -> bytes:
        """As the file holds it."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a Hugging Face model came from: a function that reads its weights, and its parts as they were loaded.

    `carried` names, by tower and initializer of its graph, the model's weights that the initializer stands for.
    `pruned` is what its folder's structure.json says, None where it had none.
    """

    structure: Structure
    pruned: bool
    weights: Callable[[], Weights] = field(repr=False)
    loaded: Mapping[str, Module] = field(repr=False)
    cut: Mapping[str, Heads] = field(repr=False)
    carried: Mapping[str, Mapping[str, tuple[str, ...]]] = field(repr=False, default_factory=dict)


def read(folder: Path) -> Structure | None:
    """The structure of a model folder; None where it has none. Raises UsageError for one that cannot be read."""
    path = folder / layout.STRUCTURE
    if not path.is_file():
        return None
    try:
        return Structure.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"the structure of the pruned model cannot be read: {error}", str(path)) from error


def fitted(model: Any, structure: Structure) -> Any:
    """Give a torch model the parts that its structure says, in their sizes; their weights are yet to be read."""
    from torch import nn

    if structure.removed:
        from compress.models.torch_blocks import shorten

        shorten(model, structure.removed)

    for path, told in structure.modules.items():
        parent, _, name = path.rpartition(".")
        try:
            holder = model.get_submodule(parent)
            old = getattr(holder, name)
        except AttributeError:
            raise UsageError(f"the model has no module {path!r}", layout.STRUCTURE) from None
        if not isinstance(old, nn.Linear):
            raise UsageError(f"{path!r} is no linear layer", layout.STRUCTURE)
        setattr(holder, name, nn.Linear(told.inputs, told.outputs, bias=told.bias))
    if structure.attentions:
        from compress.models.torch_attention import cut

        cut(model, {path: told.heads for path, told in structure.attentions.items()})
    return model


def carried(tower: Tower, weights: Weights) -> dict[str, tuple[str, ...]]:
    """Which of a tower's weights each initializer of its graph stands for, as they are when it was exported.

    The exporter keeps names, except where it computed with a weight already, and keeps one of several that are equal,
    such as norms that were never trained. So what has no initializer of its name is found by its numbers.
    """
    held = initializers(tower.graph)
    made = {name: [name] if name in weights else [] for name in held}
    places: dict[bytes, str] = {}
    for name, tensor in held.items():
        if tensor.data_type == onnx.TensorProto.FLOAT:
            places.setdefault(array(tensor).tobytes(), name)
    for name in sorted(weights.keys() - held.keys()):
        at = places.get(np.ascontiguousarray(weights[name]).tobytes())
        if at is not None:
            made[at].append(name)
    return {name: tuple(names) for name, names in made.items() if names}


def modules(towers: Mapping[str, Tower]) -> dict[str, Module]:
    """The linear layers of towers by name: those of a Hugging Face model are module paths."""
    found = {}
    for tower in towers.values():
        for site in tower.sites:
            if site.op == "MatMul":
                inputs, outputs = site.shape
                found[site.name] = Module(outputs=outputs, inputs=inputs, bias=bias_of(tower, site) is not None)
    return found


def attentions(towers: Mapping[str, Tower]) -> dict[str, Heads]:
    """How the attentions of towers are cut, by the path of the module that holds their products."""
    found = {}
    for tower in towers.values():
        layers: dict[int, list[Site]] = {}
        for site in tower.sites:
            if site.role.startswith("attn.") and site.layer is not None:
                layers.setdefault(site.layer, []).append(site)
        for sites in layers.values():
            cut = attention(tower, sites)
            path = cut.output.site.name.rpartition(".")[0]
            found[path] = Heads(heads=cut.heads, query_width=cut.query_width, value_width=cut.value_width)
    return found


def files(encoder: Encoder, weights: bool = True) -> dict[str, bytes]:
    """What an artifact of a pruned Hugging Face model holds besides: structure, config, and float weights.

    Weights are left out where they are quantized, or not asked for. Empty for models that are not pruned.
    """
    origin = encoder.origin
    if origin is None:
        return {}
    now = modules(encoder.towers)
    changed = {path: module for path, module in now.items() if origin.loaded[path] != module}
    gone = removed(origin.loaded, now)
    if not changed and not gone and not origin.pruned:
        return {}
    told = {
        "modules": {path: now[path] for path in {**origin.structure.modules, **changed} if path in now},
        "removed": tuple(sorted({*origin.structure.removed, *gone})),
        "attentions": {
            path: heads
            for path, heads in attentions(encoder.towers).items()
            if path in origin.structure.attentions or heads != origin.cut[path]
        },
    }
    made = {
        layout.STRUCTURE: origin.structure.model_copy(update=told).to_bytes(),
        "config.json": _config(encoder.files["config.json"], encoder.towers),
    }
    if weights and not any(tower.treatments for tower in encoder.towers.values()):
        made["model.safetensors"] = _weights(encoder, origin)
    return made


def removed(before: Iterable[str], now: Iterable[str]) -> list[str]:
    """Paths of the modules that went with linear layers which were there before: parts of blocks, and their norms."""
    left = {path.rpartition(".")[0] for path in now}
    gone = dict.fromkeys(path.rpartition(".")[0] for path in before if path not in set(now))
    parts = [path for path in gone if path and path not in left]
    named = [path.rpartition(".") for path in parts]
    if strange := [path for path, (*_, name) in zip(parts, named, strict=True) if name not in NORMS]:
        raise UsageError(
            "nobody knows how a model without this part is built again",
            strange[0],
            "leave its tower out of prune.depth",
        )
    return [*parts, *(f"{block}.{NORMS[name]}" for block, _, name in named)]


def _config(content: bytes, towers: Mapping[str, Tower]) -> bytes:
    """The config with the MLP width of every tower whose layers agree on one."""
    told = json.loads(content)
    for kind, tower in towers.items():
        widths = {site.shape[1] for site in tower.sites if site.role == FC1}
        if len(widths) == 1 and isinstance(told.get(f"{kind}_config"), dict):
            told[f"{kind}_config"]["intermediate_size"] = widths.pop()
    return (json.dumps(told, indent=2, sort_keys=True) + "\n").encode()


def _weights(encoder: Encoder, origin: Origin) -> bytes:
    """The model's weights as safetensors."""
    from safetensors.numpy import save

    content: bytes = save(weights_of(encoder, origin), {"format": "pt"})
    return content


def weights_of(encoder: Encoder, origin: Origin) -> dict[str, NDArray[np.float32]]:
    """The model's weights by name, with those of the graphs in place of what they were.

    Products are turned and named by their site; norms, biases, tables and positions are found by what they were.
    """
    weights = dict(origin.weights())
    if "logit_scale" in weights and encoder.logit_scale is not None:
        before = weights["logit_scale"]
        if not np.isclose(np.exp(before), encoder.logit_scale, rtol=1e-6):
            weights["logit_scale"] = np.full_like(before, np.log(encoder.logit_scale))
    for kind, tower in encoder.towers.items():
        held = initializers(tower.graph)
        for initializer, names in origin.carried.get(kind, {}).items():
            for name in names if initializer in held else ():
                values = array(held[initializer]).astype(np.float32)
                if values.size == weights[name].size:
                    weights[name] = np.ascontiguousarray(values.reshape(weights[name].shape))
        for site in tower.sites:
            if site.op == "MatMul" and f"{site.name}.weight" in weights:
                weight, bias = linear(tower, site)
                weights[f"{site.name}.weight"] = np.ascontiguousarray(weight)
                if bias_of(tower, site) is not None:
                    weights[f"{site.name}.bias"] = bias
    lost = tuple(f"{path}." for path in removed(origin.loaded, modules(encoder.towers)))
    return {name: weights[name] for name in sorted(weights) if not name.startswith(lost)}
