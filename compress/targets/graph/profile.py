"""Profile shapes: for which sizes of its inputs an engine is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from compress.artifact import layout
from compress.core.errors import IntegrityError, UsageError
from compress.models.tower import Encoder, Tower

BATCHES: Final = (1, 8, 32)
"""Smallest, usual and largest batch."""

Profile = dict[str, dict[str, dict[str, list[int]]]]
"""Tower -> input -> min, opt and max -> sizes."""


def profile(encoder: Encoder) -> Profile:
    """Shapes for every input: batches from 1 to 32, texts from one token to as many as the model has places for."""
    return {kind: _tower(encoder, tower) for kind, tower in encoder.towers.items()}


def write(encoder: Encoder, folder: Path) -> None:
    """Write the profile shapes of an artifact."""
    path = folder / layout.PROFILE_SHAPES
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"version": 1, "towers": profile(encoder)}
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path) -> Profile:
    """The profile shapes of a file by tower. Raises IntegrityError for a file that holds none."""
    try:
        towers: Profile = json.loads(path.read_bytes())["towers"]
        for inputs in towers.values():
            for shapes in inputs.values():
                if not all(isinstance(size, int) for end in shapes.values() for size in end):
                    raise ValueError("a size is no whole number")
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"holds no profile shapes: {error!r}", str(path)) from None
    return towers


def _tower(encoder: Encoder, tower: Tower) -> dict[str, dict[str, list[int]]]:
    made = {}
    for value in tower.graph.graph.input:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.name not in tower.inputs:
            continue
        free = _free(encoder, tower.kind, len(sizes))
        ends = zip(*(([size] * 3) if size else free[at] for at, size in enumerate(sizes)), strict=True)
        made[value.name] = dict(zip(("min", "opt", "max"), map(list, ends), strict=True))
    return made


def _free(encoder: Encoder, kind: str, rank: int) -> list[list[int]]:
    """The three sizes of each axis, should it not be fixed."""
    if kind == "text":
        most = _length(encoder)
        return [list(BATCHES), [1, most, most]][:rank]
    sides = _sides(encoder)
    return [list(BATCHES), [3] * 3, *([side] * 3 for side in sides)][:rank]


def _length(encoder: Encoder) -> int:
    """The longest text that the model takes."""
    told: Any = encoder.preprocess.get("text")
    if told is None:
        config = json.loads(encoder.files.get("config.json", b"{}"))
        told = {"length": config.get("text_config", config).get("max_position_embeddings")}
    if not isinstance(told, Mapping) or not told.get("length"):
        raise UsageError("nobody says how long its texts may be", "text tower", "export it with a fixed length")
    return int(told["length"])


def _sides(encoder: Encoder) -> tuple[int, int]:
    """Height and width of the images."""
    told: Any = encoder.preprocess.get("image") or {}
    if "size" in told:
        return int(told["size"][0]), int(told["size"][1])
    config = json.loads(encoder.files.get("config.json", b"{}"))
    side = config.get("vision_config", config).get("image_size") or 0
    return int(side), int(side)
