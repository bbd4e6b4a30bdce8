"""Which images a recipe shows to its steps: what a model was made with must not be what it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compress.artifact import layout
from compress.core.errors import CompressError
from compress.core.progress import Progress
from compress.data import fingerprint, source
from compress.data.fingerprint import Fingerprints
from compress.data.items import Items
from compress.gates.outcomes import Unmeasured
from compress.models import structure
from compress.recipe.load import load as load_recipe
from compress.recipe.schema import Recipe
from compress.recipe.sources import DataSource, ModelSource, NamedModel
from compress.steps import spec_of

SAMPLES = 256

STATE_IT = "state it with `--calibration none` (no data at all) or `--calibration FILE.yaml` (a `data:` as in a recipe)"


def load(recipe: Recipe, roots: tuple[Path, ...], progress: Progress) -> dict[str, Items]:
    """The items of every entry of the recipe's `data:`; SAMPLES of one that does not say how many."""
    return {name: items(spec, roots, progress) for name, spec in recipe.data.items()}


def items(spec: DataSource, roots: tuple[Path, ...], progress: Progress) -> Items:
    """The items of one entry."""
    return source.load_named(spec.model_copy(update={"samples": spec.samples or SAMPLES}), roots, progress)


def seen(loaded: Mapping[str, Items]) -> Fingerprints:
    """Fingerprints of every image of a recipe's `data:`, whichever step uses it."""
    names = [f"{name}/{each}" for name, data in loaded.items() for each in data.ids]
    return fingerprint.of_images(names, (image for data in loaded.values() for image in data.images))


def seen_by(folder: Path, roots: tuple[Path, ...], progress: Progress) -> Fingerprints | Unmeasured:
    """The same for an artifact, by its recipe. Unmeasured says why it is not known, which decides nothing."""
    recipe = folder / layout.RECIPE
    if not recipe.is_file():
        return Unmeasured(f"nobody knows what it was calibrated on: it holds no recipe; {STATE_IT}")
    try:
        made = load_recipe(recipe, spec_of)
        own = seen(load(made, roots, progress))
        pruned = structure.read(folder)
        if pruned is not None and pruned.origin.source != made.model.source and _folder(made.model, roots) is None:
            return Unmeasured(f"nobody knows what {made.model.source} was calibrated on: it is not here")
        return with_parent(own, made.model, roots, progress)
    except CompressError as error:
        return Unmeasured(f"what it was calibrated on cannot be compared with the items: {error}")


def with_parent(
    own: Fingerprints, model: ModelSource, roots: tuple[Path, ...], progress: Progress
) -> Fingerprints | Unmeasured:
    """What a recipe showed to its steps, and what was shown to its model before, where that is a pruned one."""
    folder = _folder(model, roots)
    if folder is None or structure.read(folder) is None:
        return own
    before = seen_by(folder, roots, progress)
    return before if isinstance(before, Unmeasured) else fingerprint.joined(before, own)


def _folder(model: ModelSource, roots: tuple[Path, ...]) -> Path | None:
    """Where a recipe's model lies: as it is written, or below one of the roots."""
    if not isinstance(model, NamedModel):
        return None
    places = (Path(model.source).expanduser(), *(root / model.source for root in roots))
    return next((each for each in places if each.is_dir()), None)
