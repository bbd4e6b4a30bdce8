"""What a recipe's distill steps train on: `data.training`, or what calibrates where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compress.core.errors import UsageError
from compress.data.items import Items
from compress.data.stored import stored
from compress.data.training import TrainingSet
from compress.models.tower import Encoder, copied
from compress.pipeline.options import Options
from compress.pipeline.provenance import SAMPLES
from compress.recipe.schema import TRAINING, Recipe
from compress.recipe.training import Feeding

_TRAINS: Final = "distill."

STUDENT: Final = "distill.student"
"""What the others train. It is rehearsed in a plan, and fits maps on training data where there are some."""


def trains(use: str) -> bool:
    """Whether a step trains; a plan does not rehearse those, for they take their time and change no shape."""
    return use.startswith(_TRAINS) and use != STUDENT


@dataclass(frozen=True, slots=True)
class Shown:
    """What a recipe shows to its steps: items by name, what is trained on, and what is learnt from."""

    items: Mapping[str, Items]
    training: TrainingSet | None = None
    teacher: Encoder | None = None


def teacher(recipe: Recipe, reference: Encoder) -> Encoder | None:
    """The reference as it is before any step, for a recipe that trains: steps change towers in place."""
    return copied(reference) if any(step.use.startswith(_TRAINS) for step in recipe.steps) else None


def trained(recipe: Recipe, reference: Path, options: Options) -> TrainingSet | None:
    """The training set of a recipe; None where no step trains, or the recipe names no data.

    Raises UsageError for data that are empty, lack a column, or that the model has no tower for.
    """
    if not any(step.use.startswith(_TRAINS) for step in recipe.steps):
        return None
    source = recipe.data.get(TRAINING)
    if source is None and (source := recipe.data.get("calibration")) is not None:
        told = {"split": source.split or "calibration", "samples": source.samples or SAMPLES}
        source = source.model_copy(update=told)
    if source is None:
        return None
    return TrainingSet(stored(source, options.data_roots), source.feeding or Feeding(), reference, recipe.seed)


def untrained(recipe: Recipe) -> Iterator[UsageError]:
    """What to say of the first step that trains, where there is nothing to train on."""
    first = next((step.use for step in recipe.steps if trains(step.use)), None)
    if first is not None and not recipe.data.keys() & {TRAINING, "calibration"}:
        hint = "add data: {training: {source: scenes, samples: 4000}}"
        yield UsageError(f"{first} needs training data", f"data.{TRAINING}", hint)
