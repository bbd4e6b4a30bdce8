"""Which images a recipe shows to its steps: what a model was made with must not be what it is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from PIL import Image

from compress.artifact import layout
from compress.core.errors import CompressError, UsageError
from compress.core.progress import Progress
from compress.data import album, fingerprint, source
from compress.data.album import Album
from compress.data.items import Items
from compress.data.raw import Opener
from compress.data.stored import SPLIT, stored
from compress.gates.outcomes import Unmeasured
from compress.gates.policy import PolicyTask
from compress.models import structure
from compress.pipeline.options import Options
from compress.recipe.load import load as load_recipe
from compress.recipe.schema import TRAINING, Recipe
from compress.recipe.sources import DataSource, ModelSource, NamedModel
from compress.steps import spec_of

SAMPLES = 256

MEASURED = get_args(PolicyTask.model_fields["split"].annotation)
"""Splits that a policy may name."""

STATE_IT = "state it with `--calibration none` (no data at all) or `--calibration FILE.yaml` (a `data:` as in a recipe)"


def load(recipe: Recipe, roots: tuple[Path, ...], progress: Progress) -> dict[str, Items]:
    """The items of the recipe's `data:`; SAMPLES of one that does not say how many. Training data are no items."""
    return {name: items(spec, roots, progress) for name, spec in recipe.data.items() if name != TRAINING}


def items(spec: DataSource, roots: tuple[Path, ...], progress: Progress) -> Items:
    """The items of one entry."""
    return source.load_named(spec.model_copy(update={"samples": spec.samples or SAMPLES}), roots, progress)


def seen(data: Mapping[str, DataSource], options: Options, loaded: Mapping[str, Items] | None = None) -> Album:
    """Fingerprints of every image of a recipe's `data:`, whichever step uses it; what is `loaded` already is not again.

    Those of training data, which may be more than fit into memory, are kept in the cache.
    """
    parts: list[Album] = []
    for name, spec in data.items():
        if name == TRAINING:
            parts.append(_trained_on(spec, options))
            continue
        held = (loaded or {}).get(name) or items(spec, options.data_roots, options.progress)
        parts.append(Album((fingerprint.of_images([f"{name}/{each}" for each in held.ids], held.images),)))
    return sum(parts, Album(()))


def _trained_on(spec: DataSource, options: Options) -> Album:
    """Every image of training data as it is stored; one that cannot be read was shown to nobody.

    Scenes of a split that no policy can measure are left out: their texts occur in no other split, and among millions
    of pairs a few faint codes are near enough to be taken for copies.
    """
    if spec.source == "scenes" and (spec.split or SPLIT) not in MEASURED:
        return Album(())
    data = stored(spec, options.data_roots)

    def images() -> Iterator[tuple[str, Image.Image]]:
        opener = Opener()
        for raw in options.progress.track(data.all(), "look for what is measured among what is trained on"):
            try:
                image = opener.open(raw).image
            except UsageError:
                continue
            if image is not None:
                yield f"{TRAINING}/{raw.name}", image

    if data.use == "captions":
        return Album(())
    return album.kept(options.cache / "fingerprints" / data.digest, images())


def seen_by(folder: Path, options: Options) -> Album | Unmeasured:
    """The same for an artifact, by its recipe. Unmeasured says why it is not known, which decides nothing."""
    recipe = folder / layout.RECIPE
    if not recipe.is_file():
        return Unmeasured(f"nobody knows what it was calibrated on: it holds no recipe; {STATE_IT}")
    try:
        made = load_recipe(recipe, spec_of)
        own = seen(made.data, options)
        pruned = structure.read(folder)
        roots = options.data_roots
        if pruned is not None and pruned.origin.source != made.model.source and _folder(made.model, roots) is None:
            return Unmeasured(f"nobody knows what {made.model.source} was calibrated on: it is not here")
        return with_parent(own, made.model, options)
    except CompressError as error:
        return Unmeasured(f"what it was calibrated on cannot be compared with the items: {error}")


def with_parent(own: Album, model: ModelSource, options: Options) -> Album | Unmeasured:
    """What a recipe showed to its steps, and what was shown to its model before, where that is a pruned one."""
    folder = _folder(model, options.data_roots)
    if folder is None or structure.read(folder) is None:
        return own
    before = seen_by(folder, options)
    return before if isinstance(before, Unmeasured) else before + own


def _folder(model: ModelSource, roots: tuple[Path, ...]) -> Path | None:
    """Where a recipe's model lies: as it is written, or below one of the roots."""
    if not isinstance(model, NamedModel):
        return None
    places = (Path(model.source).expanduser(), *(root / model.source for root in roots))
    return next((each for each in places if each.is_dir()), None)
