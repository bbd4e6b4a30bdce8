"""From a recipe's `model:` to an encoder, and to the float reference that everything is measured against."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from compress.artifact import layout, manifest
from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.models.loading import load as load_named
from compress.models.onnx_towers import load_onnx
from compress.models.tower import Encoder
from compress.recipe.load import load as load_recipe
from compress.recipe.load import locate
from compress.recipe.sources import ModelSource, NamedModel, OnnxModel, TokenizerText
from compress.steps import spec_of
from compress.targets import onnxruntime_cpu
from compress.targets.graph.folder import Opened, write_rest

TOKENIZER: Final = "tokenizer.json"


def load(source: ModelSource, recipe: Path, offline: bool, roots: tuple[Path, ...] = ()) -> Encoder:
    """The encoder that a recipe names; ONNX files are looked for beside the recipe, here, and below each of `roots`."""
    if not isinstance(source, OnnxModel):
        return load_named(source, offline)
    named = {"vision": source.vision, "text": source.text}
    files = {kind: _found(path, recipe, roots) for kind, path in named.items() if path is not None}
    for path in files.values():
        _require_original(path)
    preprocess = {"kind": "plain", **source.preprocess.model_dump(mode="json", exclude_none=True)}
    encoder = load_onnx(files, preprocess, source.logit_scale, source.normalize)
    if not isinstance(source.preprocess.text, TokenizerText):
        return encoder
    told = {**preprocess["text"], "tokenizer": TOKENIZER}
    files_ = {TOKENIZER: tokenizer_file(_found(source.preprocess.text.tokenizer, recipe, roots))}
    return replace(encoder, files=files_, preprocess={**preprocess, "text": told})


def _require_original(path: Path) -> None:
    """Raise UsageError for a tower of an artifact that steps have changed: it would be its own reference."""
    made = path.resolve().parent.parent / layout.RECIPE
    if made.is_file() and (recipe := load_recipe(made, spec_of)).steps:
        hint = f"name the model that it was made from: {recipe.model.source}"
        raise UsageError("is a tower of a compressed artifact, and losses would add up unseen", str(path), hint)


def original(encoder: Encoder, offline: bool, roots: tuple[Path, ...] = ()) -> Encoder:
    """What an encoder is held against: itself, or the model that it was pruned from before.

    Ten models, each pruned from the one before and held against it, would lose ten times what a policy tolerates.
    """
    if encoder.origin is None or not encoder.origin.pruned:
        return encoder
    told = encoder.origin.structure.origin
    places = (
        [told.source, *(str(root / told.source) for root in roots)] if told.source.startswith("./") else [told.source]
    )
    source = next((place for place in places if Path(place).is_dir()), told.source)
    try:
        named = NamedModel(source=source, revision=told.revision, normalize=encoder.normalized)
        return load_named(named, offline)
    except UsageError as error:
        hint = "run from the folder that holds it, or name that folder with --data-root"
        raise UsageError(f"the model that it was pruned from cannot be read: {error}", encoder.source, hint) from error


def _found(written: str, recipe: Path, roots: tuple[Path, ...]) -> Path:
    places = [locate(written, recipe), *(root / written for root in roots)]
    return next((path for path in places if path.exists()), places[0])


def tokenizer_file(path: Path) -> bytes:
    """The content of a tokenizer file. Raises UsageError where there is none or it is none."""
    from tokenizers import Tokenizer

    file = path / TOKENIZER if path.is_dir() else path
    try:
        content = file.read_bytes()
        Tokenizer.from_buffer(content)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", str(file), "model.preprocess.text.tokenizer") from None
    except Exception as error:  # tokenizers raises plain Exception
        raise UsageError(f"is no tokenizer file: {error}", str(file), "model.preprocess.text.tokenizer") from error
    return content


def export_float(encoder: Encoder, folder: Path) -> None:
    """Write the float towers that everything is measured against, whatever the target: they run on any CPU."""
    onnxruntime_cpu.export(encoder, folder)


def write_reference(encoder: Encoder, cache: Path) -> Path:
    """The float export of an encoder as a folder that runs like an artifact, named by its digest and kept."""
    return _cached(cache, lambda folder: export_float(encoder, folder))


def write_shell(encoder: Encoder, cache: Path, progress: Progress) -> Path:
    """The reference of a streamed encoder without its towers: what makes inputs, and the digest of the weights.

    Nothing is measured against it, but what follows from the model follows from this folder.
    """
    assert encoder.shards is not None
    weights = json.dumps({"weights": encoder.shards.digest(progress)}) + "\n"

    def export(folder: Path) -> None:
        write_rest(encoder, folder, Opened(onnxruntime_cpu.NAME))
        (folder / "compress" / "weights.json").write_text(weights)

    return _cached(cache, export)


def _cached(cache: Path, export: Callable[[Path], None]) -> Path:
    """A folder that is named by the digest of its content and kept."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as made:
        fresh = Path(made) / "reference"
        fresh.mkdir()
        export(fresh)
        kept = cache / manifest.scan(fresh, "reference").subject[:16]
        if kept.is_dir() and manifest.scan(kept, "reference").subject[:16] != kept.name:
            kept.rename(Path(made) / "damaged")
        if not kept.is_dir():
            fresh.rename(kept)
    return kept
