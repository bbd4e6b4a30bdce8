"""The files of an artifact that every ONNX target writes alike: towers, processor files, runtime file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx

from compress.data import runtime
from compress.data.runtime import Proof
from compress.models import structure
from compress.models.external_data import save
from compress.models.students_origin import standing
from compress.models.tower import Encoder, Tower
from compress.models.treatment import BlockWeights, Float16, StaticFloat8, StaticInt8

Emit = Callable[[Tower], onnx.ModelProto]


@dataclass(frozen=True, slots=True)
class Opened:
    """For which target a folder is made, how its files are opened to be measured, and what that proves."""

    target: str
    session: runtime.Session = field(default_factory=runtime.Session)
    proof: Proof | None = None


def write(encoder: Encoder, folder: Path, emit: Emit, opened: Opened) -> dict[str, Path]:
    """Write the encoder as an artifact is laid out; returns the file of each tower."""
    files = files_of(encoder, folder)
    for kind, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(emit(encoder.towers[kind]), path)
    write_rest(encoder, folder, opened)
    return files


def write_rest(encoder: Encoder, folder: Path, opened: Opened) -> None:
    """Write everything of an artifact but its towers."""
    files, told = files_of(encoder, folder), standing(encoder)
    for name, data in {**told.files, **structure.files(told)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_runtime(encoder, folder, files, opened)


def write_runtime(encoder: Encoder, folder: Path, files: Mapping[str, Path], opened: Opened) -> None:
    """Write how the files of the towers are opened and fed."""
    placed = {kind: path.relative_to(folder).as_posix() for kind, path in files.items()}
    runtime.write(folder, _runtime(encoder, placed, opened))


def files_of(encoder: Encoder, folder: Path) -> dict[str, Path]:
    """Where the file of each tower is, or will be, in the folder of an artifact."""
    return {kind: folder / "onnx" / f"{kind}_model{suffix(tower)}.onnx" for kind, tower in encoder.towers.items()}


_SUFFIXES: Final = ((StaticFloat8, "_fp8"), (StaticInt8, "_int8"), (BlockWeights, "_q8"), (Float16, "_fp16"))


def suffix(tower: Tower) -> str:
    """What readers of the Hugging Face layout expect behind the tower's name: nothing, _fp16, _int8, _q8 or _q4.

    With `a8` behind it where products round their inputs as well: that is another model, and no reader shall take one
    for the other.
    """
    held = tower.treatments.values()
    blocks = [each for each in held if isinstance(each, BlockWeights)]
    rounded = "a8" if any(each.compute == "int8" for each in blocks) else ""
    if any(each.bits == 4 for each in blocks) or rounded:
        return f"_q{min(each.bits for each in blocks)}{rounded}"
    return next((name for kind, name in _SUFFIXES if any(isinstance(each, kind) for each in held)), "")


def _runtime(encoder: Encoder, files: Mapping[str, str], opened: Opened) -> runtime.Runtime:
    towers: dict[str, Any] = {}
    for kind, tower in encoder.towers.items():
        entry = {"file": files[kind], "input": tower.inputs[0], "output": tower.output, "tokens": tower.tokens}
        towers[kind] = {**entry, "mask": tower.inputs[1]} if len(tower.inputs) > 1 else entry
    return runtime.Runtime.model_validate(
        {
            "target": opened.target,
            "proof": opened.proof,
            "towers": towers,
            "session": opened.session,
            "preprocess": _tuples(encoder.preprocess),
            "logit_scale": encoder.logit_scale or 1.0,
            "normalized": encoder.normalized,
        }
    )


def _tuples(value: Any) -> Any:
    """Lists as tuples: the strict model takes no list for a tuple."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
