"""What a run does differently for a model larger than memory: it looks before it starts, and keeps no float copy."""

from __future__ import annotations

from pathlib import Path

from compress.models import loading
from compress.models.loading import Described
from compress.models.tower import Encoder
from compress.pipeline import model
from compress.pipeline.forecast import Forecast, forecast
from compress.pipeline.options import Options
from compress.recipe.schema import Recipe
from compress.recipe.sources import OnnxModel


def expected(recipe: Recipe, options: Options) -> tuple[Described, Forecast] | None:
    """What a run will take, from headers alone; None for a model that is loaded."""
    if isinstance(recipe.model, OnnxModel):
        return None
    seen = loading.describe(recipe.model, options.offline)
    return None if seen.shards is None else (seen, forecast(recipe, seen, seen.shards))


def require_possible(recipe: Recipe, options: Options) -> None:
    """Raise what stands in the way of a streamed run, before any work is done."""
    if (found := expected(recipe, options)) is not None:
        found[1].require(options)


def reference(recipe: Recipe, encoder: Encoder, options: Options) -> Path:
    """The float reference of a run; of a streamed one without gates only what makes its inputs."""
    if encoder.shards is None or recipe.gated:
        return model.write_reference(encoder, options.cache / "reference")
    return model.write_shell(encoder, options.cache / "reference", options.progress)
