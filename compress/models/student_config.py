"""The config of a student's tower: the teacher's or another one's, smaller by a name, changed key by key, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from compress.core.errors import UsageError
from compress.core.names import did_you_mean

WHERE: Final = "config"
DEPTH: Final = "num_hidden_layers"
WIDTH: Final = "hidden_size"
HEADS: Final = "num_attention_heads"
INNER: Final = "intermediate_size"
GIVEN: Final = {"projection_dim": "a student's embeddings are as wide as its teacher's"}
"""Keys that are not a student's to choose, and why."""


@dataclass(frozen=True, slots=True)
class Size:
    """Shares of the layers and of the width that a listed student keeps; heads stay as wide as they are."""

    layers: float
    width: float


SIZES: Final = {
    "half": Size(0.5, 1.0),
    "quarter": Size(0.25, 1.0),
    "small": Size(1.0, 0.5),
    "tiny": Size(1.0, 0.25),
}
"""Fewer layers of the same width, as DistilBERT (1910.01108) and TinyCLIP (2309.12314) have them, or as many of less
width, as DeiT-S and DeiT-Ti are to DeiT-B (2012.12877)."""


def config_of(told: Mapping[str, Any], where: str) -> Any:
    """The config of a JSON-like mapping. Raises UsageError for a `model_type` that transformers does not know."""
    from transformers import CONFIG_MAPPING

    name = told.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        hint = did_you_mean(str(name), list(CONFIG_MAPPING)) if name else "such as model_type: bert"
        raise UsageError(f"no model type {name!r}" if name else "`model_type` is required", where, hint)
    return _made(CONFIG_MAPPING[name], told, where)


def tower_config(config: Any, kind: str) -> Any:
    """The part of a model's config that describes one tower: the whole where the model is that tower."""
    return getattr(config, f"{kind}_config", config)


def shrunk(config: Any, size: str) -> Any:
    """The config of a listed size. Raises UsageError where it has no layers, width or heads to take from."""
    told, share = config.to_dict(), SIZES[size]
    if lacking := [key for key in (DEPTH, WIDTH, HEADS) if not isinstance(told.get(key), int)]:
        raise UsageError(f"a {config.model_type} has no {lacking[0]}", "size", "say what is smaller with `config`")
    heads = max(1, round(told[HEADS] * share.width))
    width = told[WIDTH] // told[HEADS] * heads
    changes: dict[str, Any] = {DEPTH: max(1, round(told[DEPTH] * share.layers))}
    if share.width < 1:
        changes |= {WIDTH: width, HEADS: heads}
        if isinstance(told.get(INNER), int):
            changes[INNER] = told[INNER] * width // told[WIDTH]
    return _made(type(config), {**told, **changes}, "size")


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """The config with other values. Raises UsageError for a key that it does not have, or values that it refuses."""
    told = config.to_dict()
    for key in changes:
        if key in GIVEN:
            raise UsageError(f"{key} is not the student's to choose", f"{WHERE}.{key}", GIVEN[key])
        if key not in told:
            raise UsageError(
                f"a {config.model_type} has no such key", f"{WHERE}.{key}", did_you_mean(key, sorted(told))
            )
    return _made(type(config), {**told, **changes}, WHERE)


def written(config: Any) -> dict[str, Any]:
    """A config as JSON-like data, without what ties it to a folder or a version."""
    told: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for private in ("_name_or_path", "transformers_version", "architectures"):
        told.pop(private, None)
    return told


def require_image(config: Any, shape: tuple[int, ...]) -> None:
    """Raise UsageError where a vision config takes other images than the model's preprocessing makes.

    `shape` is that of the teacher's input without the batch: channels, height, width; 0 where any will do.
    """
    side, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if isinstance(side, int | list | tuple) and len(shape) == 3 and all(shape[1:]):
        own = (side, side) if isinstance(side, int) else tuple(side)
        if own != shape[1:]:
            raise UsageError(
                f"the student takes images of {_by(own)}, and the preprocessing makes {_by(shape[1:])}",
                f"{WHERE}.image_size",
                f"config: {{image_size: {shape[1] if shape[1] == shape[2] else list(shape[1:])}}}",
            )
        edges = (patch, patch) if isinstance(patch, int) else tuple(patch or ())
        if any(length % edge for length, edge in zip(own, edges, strict=False)):
            hint = "take a size that divides the image"
            raise UsageError(f"patches of {_by(edges)} leave a rest of {_by(own)}", f"{WHERE}.patch_size", hint)
    channels = getattr(config, "num_channels", None)
    if len(shape) == 3 and shape[0] and channels not in (None, shape[0]):
        raise UsageError(f"the student takes {channels} channels, and images have {shape[0]}", f"{WHERE}.num_channels")


def _by(lengths: tuple[int, ...]) -> str:
    return "x".join(map(str, lengths))


def _made(kind: Any, told: Mapping[str, Any], where: str) -> Any:
    try:
        return kind.from_dict({key: value for key, value in told.items() if key != "model_type"})
    except Exception as error:  # transformers and huggingface_hub raise a dozen unrelated classes
        raise UsageError(f"the config is refused: {str(error).strip().splitlines()[-1].strip()}", where) from error
