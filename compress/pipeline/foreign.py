"""ONNX towers that another tool made, laid out as an artifact is, so that they are measured as one is."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.core import digest
from compress.core.errors import IntegrityError, UsageError
from compress.data import runtime
from compress.data.runtime import Runtime, TowerFile, Towers
from compress.pipeline.inputs import Inputs, matched
from compress.pipeline.model import TOKENIZER
from compress.targets.graph import contents

KINDS: Final = ("vision", "text")
_WORDS: Final = {"vision": ("vision", "image", "visual"), "text": ("text",)}
_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_NAME_THEM: Final = "name the files: --vision FILE.onnx --text FILE.onnx"

Described = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """The ONNX files of a candidate by tower, and what it is called."""

    name: str
    files: Mapping[str, Path]


def found(path: Path) -> Given | None:
    """The towers that a path names: one file is a vision tower; None where it is something else than ONNX files.

    Raises UsageError for a folder whose files cannot be told apart.
    """
    if path.suffix == ".onnx":
        return Given(path.stem, {"vision": path})
    if not path.is_dir() or (path / runtime.FILE).is_file():
        return None
    here = sorted(each for folder in (path, path / "onnx") for each in folder.glob("*.onnx"))
    if not here:
        return None
    if any((path / name).is_file() for name in _WEIGHTS):
        hint = f"{_NAME_THEM}; to judge the weights, name a folder without ONNX files"
        raise UsageError("the folder holds weights and ONNX files, and only one of them can be meant", str(path), hint)
    return Given(path.resolve().name, {kind: _of_kind(kind, here, path) for kind in KINDS})


def _of_kind(kind: str, files: list[Path], folder: Path) -> Path:
    fit = [each for each in files if any(word in each.stem.lower() for word in _WORDS[kind])]
    if len(fit) != 1:
        names = ", ".join(each.name for each in files)
        raise UsageError(f"{len(fit)} of its ONNX files look like a {kind} tower: {names}", str(folder), _NAME_THEM)
    return fit[0]


def lay_out(given: Given, like: Path, inputs: Inputs | None, folder: Path) -> Described:
    """Copy the towers into an empty folder, with the preprocessing and a missing tower of `like`.

    `inputs` describes the inputs where `like` does not. Returns by tower where it comes from, the digest of its file
    and what the file contains. Raises UsageError where names do not match, IntegrityError for files that are links or
    keep weights elsewhere.
    """
    model = runtime.read(like)
    spec = inputs.applied(model) if inputs else model
    towers: dict[str, TowerFile | None] = {}
    told: Described = {}
    described = contents.read({kind: _regular(path) for kind, path in given.files.items()})
    for kind in KINDS:
        path, asked = given.files.get(kind), getattr(model.towers, kind)
        if path is None:
            towers[kind], told[kind] = _borrowed(asked, like, folder), {"from": "the reference"}
            continue
        held = described[kind]
        place = f"onnx/{kind}/{kind}_model.onnx"
        towers[kind] = matched(kind, held, asked, place, inputs is not None)
        sha256 = _copied(path, folder / place)
        for name in held.external:
            _copied(path.with_name(name), (folder / place).with_name(name))
        told[kind] = {"from": path.name, "sha256": sha256, **held.data()}
    _copy_processor(like, folder)
    if inputs and inputs.tokenizer is not None:
        (folder / TOKENIZER).write_bytes(inputs.tokenizer)
    runtime.write(folder, Runtime(**{**dict(spec), "towers": Towers(**towers)}))
    return told


def _borrowed(asked: TowerFile | None, like: Path, folder: Path) -> TowerFile | None:
    if asked is not None:
        source = like / asked.file
        for path in source.parent.glob(f"{source.name}*"):  # with the weights that lie beside it
            _copied(path, folder / path.relative_to(like))
    return asked


def _copy_processor(like: Path, folder: Path) -> None:
    for path in sorted(like.iterdir()):
        if path.is_file():
            _copied(path, folder / path.name)


def _regular(path: Path) -> Path:
    try:
        found = path.lstat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", str(path)) from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise IntegrityError("is not a regular file with one name", str(path), "copy the file itself")
    return path


def _copied(source: Path, target: Path) -> str:
    """Copy one regular file, following no link; returns its SHA-256."""
    _regular(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", str(source)) from None
    with os.fdopen(opened, "rb") as original, target.open("xb") as copy:
        while piece := original.read(1 << 22):
            copy.write(piece)
    return digest.of_file(target)
