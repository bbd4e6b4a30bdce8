"""`torch`: a Hugging Face folder of safetensors: float weights, pruned or not, and those of bitsandbytes.

Each tower is a shard below torch/, so that sizes are told by tower; `model.safetensors.index.json` joins them, and
plain transformers loads the folder. Embeddings are measured by running it in torch on the CPU.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from compress.core.errors import EnvironmentFailure, UsageError
from compress.models import bnb_weights, structure
from compress.models.loading import family_of
from compress.models.structure import Origin
from compress.models.students_origin import standing
from compress.models.tower import Encoder
from compress.models.treatment import BnbWeights
from compress.targets import Counts
from compress.targets.graph.folder import Opened, write_runtime

__all__ = ["NAME", "counts", "export", "files_of", "ready"]

NAME: Final = "torch"
INDEX: Final = "model.safetensors.index.json"
CONFIG: Final = "config.json"


def ready() -> None:
    """Raise EnvironmentFailure where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise EnvironmentFailure("torch is not installed", NAME) from error


def files_of(encoder: Encoder, folder: Path) -> dict[str, Path]:
    """Where the file of each tower is, or will be, in the folder of an artifact."""
    kind = _weights(encoder)
    ending = f"_{kind}" if kind else ""
    return {each: folder / "torch" / f"{each}_model{ending}.safetensors" for each in encoder.towers}


def export(encoder: Encoder, place: Path) -> dict[str, Path]:
    """Write the encoder as it stands, treated or float; returns the file of each tower.

    Raises UsageError with the site's name for what torch has no layer for, and for towers that came as ONNX.
    """
    encoder = standing(encoder)
    origin = _origin(encoder)
    kind = _weights(encoder)
    files = files_of(encoder, place)
    shards: dict[str, dict[str, Any]] = {tower: {} for tower in files}
    for name, values in _state(encoder, origin).items():
        shards[_tower_of(name, encoder, origin)][name] = values
    for tower, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        bnb_weights.save(shards[tower], path)
    index = {name: files[tower].relative_to(place).as_posix() for tower, held in shards.items() for name in held}
    size = sum(values.nbytes for held in shards.values() for values in held.values())
    told = {**encoder.files, **structure.files(encoder, weights=False)}
    told[CONFIG] = _config(told[CONFIG], encoder, kind)
    told[INDEX] = _json({"metadata": {"total_size": size}, "weight_map": index})
    for name, content in told.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    write_runtime(encoder, place, files, Opened(NAME))
    return files


def counts(encoder: Encoder, files: Mapping[str, Path]) -> dict[str, Counts]:
    """By tower: what was planned and what the written file holds."""
    made = {}
    for kind, path in files.items():
        tower = encoder.towers[kind]
        treated = {name: held for name, held in tower.treatments.items() if isinstance(held, BnbWeights)}
        planned = Counter(f"{held.weights} linear" for held in treated.values())
        planned["float linear"] = sum(site.op == "MatMul" for site in tower.sites) - len(treated)
        names = [site.name for site in tower.sites if site.op == "MatMul"]
        found = bnb_weights.kinds(path, names)
        made[kind] = _told(planned), _told(found)
    return made


def _told(counted: Counter[str]) -> dict[str, str]:
    return {name: str(count) for name, count in sorted(counted.items()) if count}


def _origin(encoder: Encoder) -> Origin:
    if encoder.origin is None:
        hint = "use an ONNX target"
        what = "these towers came as ONNX, or have a student of another architecture among them"
        raise UsageError(f"{NAME} needs a Hugging Face model, and {what}", encoder.source, hint)
    return encoder.origin


def _weights(encoder: Encoder) -> str | None:
    """How bitsandbytes stores the treated weights; None where nothing is treated."""
    kinds: dict[str, str] = {}
    for tower in encoder.towers.values():
        for name, held in tower.treatments.items():
            if not isinstance(held, BnbWeights):
                hint = "use quantize.bnb, or an ONNX target"
                raise UsageError(f"{type(held).__name__} is no layer of torch's", name, hint)
            kinds.setdefault(held.weights, name)
    if len(kinds) > 1:
        hint = "one `weights` for all of them: transformers' config has room for one"
        raise UsageError(f"{' and '.join(sorted(kinds))} in one model", list(kinds.values())[1], hint)
    return next(iter(kinds), None)


def _state(encoder: Encoder, origin: Origin) -> dict[str, Any]:
    """Every weight by name, treated ones as bitsandbytes stores them."""
    held = {
        name: each
        for tower in encoder.towers.values()
        for name, each in tower.treatments.items()
        if isinstance(each, BnbWeights)
    }
    made: dict[str, Any] = {}
    for name, values in structure.weights_of(encoder, origin).items():
        module = name.removesuffix(".weight")
        made |= bnb_weights.stored(module, held[module]) if name != module and module in held else {name: values}
    return dict(sorted(made.items()))


def _tower_of(name: str, encoder: Encoder, origin: Origin) -> str:
    """The tower that a weight belongs to; what belongs to none, such as the logit scale, goes to the last one."""
    family = family_of(origin.structure.architecture, Path())
    for kind, parts in family.towers.items():
        if name.partition(".")[0] in (parts.body, parts.projection):
            return kind
    return list(encoder.towers)[-1]


def _config(content: bytes, encoder: Encoder, kind: str | None) -> bytes:
    """The config; with what transformers has to know to load the weights of bitsandbytes."""
    told = json.loads(content)
    if kind is not None:
        treated = {name for tower in encoder.towers.values() for name in tower.treatments}
        linear = {site.name for tower in encoder.towers.values() for site in tower.sites if site.op == "MatMul"}
        told["quantization_config"] = bnb_weights.config(kind, sorted(linear - treated))
    return _json(told)


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
