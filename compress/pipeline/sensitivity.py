"""How much each treated layer alone moves a tower's embedding, on calibration samples that no step was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.core.progress import Progress
from compress.data.items import Items, Lazy
from compress.models.tower import Encoder, Tower
from compress.models.treatment import Treatment
from compress.pipeline import provenance
from compress.pipeline.calibration import Calibration
from compress.recipe.sources import DataSource
from compress.steps.embedding import embeddings
from compress.steps.step import Context

SAMPLES: Final = 64
"""Held-out items that the layers are compared on."""

FEWEST: Final = 8
"""With fewer items that no step has seen, the layers are compared on those that steps were shown, and that is told."""

BROKEN: Final = 2.0
"""The damage of an embedding that is not finite: as much as of one that points the other way."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What treating one site alone does to its tower's embedding: 1 - cosine with the float one.

    `mean` is over the samples; `p1` is the 99th percentile of it, which is one less the 1st percentile of the cosines.
    """

    tower: str
    site: str
    role: str
    layer: int | None
    treatment: str
    mean: float
    p1: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Sites, the most damaging first; how many samples of each tower, and that no step had seen them, or had."""

    rows: tuple[Damage, ...]
    samples: Mapping[str, int]
    held_out: bool

    def to_data(self) -> dict[str, Any]:
        """As JSON-like data."""
        return asdict(self)


def measure(encoder: Encoder, items: Items, reference: Path, held_out: bool, progress: Progress) -> Sensitivity:
    """Treat one site after another, and compare with none treated. `reference` makes the inputs."""
    context = Context(Calibration(items, reference).feeds(), progress)
    rows: list[Damage] = []
    samples: dict[str, int] = {}
    for kind, tower in encoder.towers.items():
        if tower.treatments:
            found, samples[kind] = _of_tower(tower, context)
            rows += found
    return Sensitivity(tuple(sorted(rows, key=lambda row: (-row.mean, row.tower, row.site))), samples, held_out)


def _of_tower(tower: Tower, context: Context) -> tuple[list[Damage], int]:
    sites = [site for site in tower.sites if site.name in tower.treatments]
    variants: list[dict[str, Treatment]] = [{}, *({site.name: tower.treatments[site.name]} for site in sites)]
    before, *after = embeddings(tower, variants, context)
    rows = []
    for site, made in zip(sites, after, strict=True):
        lost = damage(before, made)
        told = type(tower.treatments[site.name]).__name__
        mean, worst = float(lost.mean()), float(np.quantile(lost, 0.99))
        rows.append(Damage(tower.kind, site.name, site.role, site.layer, told, mean, worst))
    return rows, len(before)


def damage(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - cosine of each row, (n,); 1 for a row that has become zero, 2 for one that is not finite."""
    a, b = before.astype(np.float64), after.astype(np.float64)
    sound = np.isfinite(np.concatenate([a, b], 1)).all(1, keepdims=True)
    a, b = np.where(sound, a, 0), np.where(sound, b, 0)
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    made: NDArray[np.float64] = np.where(sound[:, 0], 1 - (a * b).sum(1) / np.where(length == 0, 1, length), BROKEN)
    return made


def held_out(spec: DataSource, shown: Items, roots: tuple[Path, ...], progress: Progress) -> tuple[Items, bool]:
    """Items of a calibration source beside those that steps are shown, and whether there were enough of them."""
    more = provenance.items(spec.model_copy(update={"samples": len(shown.ids) + SAMPLES}), roots, progress)
    seen = set(shown.ids)
    fresh = [at for at, name in enumerate(more.ids) if name not in seen][:SAMPLES]
    if len(fresh) < FEWEST:
        return _some(shown, list(range(min(SAMPLES, len(shown.ids))))), False
    return _some(more, fresh), True


def _some(items: Items, places: Sequence[int]) -> Items:
    """The items at these places."""
    return Items(
        ids=tuple(items.ids[at] for at in places),
        images=Lazy(len(places), lambda at: items.images[places[at]]),
        captions=tuple(items.captions[at] for at in places),
        negatives=tuple(items.negatives[at] for at in places),
        columns={name: tuple(column[at] for at in places) for name, column in items.columns.items()},
        digest=items.digest,
    )


def by_layer(found: Sensitivity, selectors: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Selectors of layers, the most damaging first; a layer's damage is the sum of its sites'.

    `selectors` names the layer of each (tower, site).
    """
    sums: dict[str, float] = {}
    for row in found.rows:
        if (name := selectors.get((row.tower, row.site))) is not None:
            sums[name] = sums.get(name, 0.0) + row.mean
    return tuple(sorted(sums, key=lambda name: (-sums[name], name)))
