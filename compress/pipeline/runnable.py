"""From what a user names on the command line to a folder whose towers run."""

from __future__ import annotations

from pathlib import Path

from compress.artifact import layout
from compress.core.errors import UsageError
from compress.data import runtime
from compress.models import structure
from compress.pipeline import model
from compress.pipeline.options import Options
from compress.recipe.load import load
from compress.recipe.sources import NamedModel
from compress.steps import spec_of


def runnable(named: str, options: Options, allow_pickle: bool = False) -> Path:
    """An artifact, or any folder with a runtime file, as it is; any other model as its float export, kept in the cache.

    Raises UsageError for what is no model, EnvironmentFailure for what would have to be downloaded.
    """
    folder = Path(named)
    if (folder / runtime.FILE).is_file():
        return folder
    source = source_of(named, allow_pickle)
    options.progress.say(f"exporting {named} in float")
    encoder = model.load(source, Path("command line"), options.offline, options.data_roots)
    return model.write_reference(encoder, options.cache / "reference")


def exported_here(folder: Path, options: Options) -> bool:
    """Whether a folder is the float export that `runnable` made of a model."""
    return folder.parent == options.cache / "reference"


def reference(named: str, options: Options, allow_pickle: bool = False) -> Path:
    """The same for what a candidate is held against, which has to be an original.

    Raises UsageError for a compressed artifact: ten candidates, each held against the one before, would lose ten times
    what a policy tolerates.
    """
    if (pruned := structure.read(Path(named))) is not None:
        raise UsageError(
            "a reference has to be an original, and this model is pruned", named, f"name {pruned.origin.source}"
        )
    recipe = Path(named) / layout.RECIPE
    if recipe.is_file():
        made = load(recipe, spec_of)
        if made.steps:
            raise UsageError(
                "a reference has to be an original, and this artifact is compressed itself",
                named,
                f"name the model it was made from: {made.model.source}",
            )
    return runnable(named, options, allow_pickle)


def source_of(named: str, allow_pickle: bool = False) -> NamedModel:
    """What a recipe would call this model."""
    if named.endswith(".onnx"):
        raise UsageError(
            "one ONNX file is a tower, not an encoder with its preprocessing",
            named,
            "write a recipe with `model: {source: onnx, vision: ..., text: ..., preprocess: ...}` and run it",
        )
    return NamedModel(source=named, allow_pickle=allow_pickle)
