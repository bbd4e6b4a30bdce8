"""Which layers a prune step works on, and the sites of each by role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from compress.core.errors import UsageError
from compress.models.surgery import compact
from compress.models.tower import Encoder, Site, Tower
from compress.recipe.steps import StepSpec
from compress.steps._selection import selected
from compress.steps.step import SiteReport

Layer = dict[str, list[Site]]


def layers(encoder: Encoder, spec: StepSpec, roles: Sequence[str]) -> Iterator[tuple[Tower, list[Layer]]]:
    """For each tower the selected layers, each as its sites by role; `roles` are those that the method changes.

    A layer is selected by any of its sites and left out by any of them. Raises UsageError for a selector of another
    role, and for a tower that was quantized before: what is cut has to be float.
    """
    chosen = list(selected(encoder.towers, spec, roles))
    if strange := sorted({site.role for _, site in chosen} - set(roles)):
        raise UsageError(
            f"{', '.join(strange)} cannot be pruned by this method", "include", f"it prunes {', '.join(roles)}"
        )
    wanted = {(tower.kind, site.layer) for tower, site in chosen}
    for kind in spec.towers:
        wanted -= {(kind, layer) for layer in excluded(encoder, spec, roles, kind).values()}
    for tower in dict.fromkeys(spec.towers):
        if tower in encoder.towers and (found := _by_layer(encoder.towers[tower], wanted)):
            yield encoder.towers[tower], found
            compact(encoder.towers[tower])


def excluded(encoder: Encoder, spec: StepSpec, roles: Sequence[str], kind: str) -> dict[str, int | None]:
    """Names of a tower's sites of these roles that `exclude` names, with their layers."""
    if not spec.exclude:
        return {}
    every, left = (
        {(tower.kind, site.name): site.layer for tower, site in selected(encoder.towers, each, roles)}
        for each in (
            spec.model_copy(update={"include": (), "exclude": ()}),
            spec.model_copy(update={"include": ()}),
        )
    )
    return {name: layer for (tower, name), layer in every.items() if tower == kind and (tower, name) not in left}


def _by_layer(tower: Tower, wanted: set[tuple[str, int | None]]) -> list[Layer]:
    if tower.treatments:
        raise UsageError(f"the {tower.kind} tower is quantized already", "steps", "prune first, then quantize")
    found: dict[int, Layer] = {}
    for site in tower.sites:
        if site.layer is not None and (tower.kind, site.layer) in wanted:
            found.setdefault(site.layer, defaultdict(list))[site.role].append(site)
    return [found[layer] for layer in sorted(found)]


def ranges(places: Sequence[int]) -> str:
    """Places as text: runs as first-last, such as 0-3, 7."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def row(tower: Tower, site: Site, words: str, error: float, removed: str = "") -> SiteReport:
    """What became of a site; `site` is as it was before."""
    before, after = (4 * int(np.prod(each.shape)) for each in (site, tower.site(site.name)))
    return SiteReport(tower.kind, site.name, site.role, words, before, after, error, removed)


def summary(rows: Sequence[SiteReport]) -> str:
    """What a step did, in a line."""
    before, after = sum(each.bytes_before for each in rows), sum(each.bytes_after for each in rows)
    return f"{len(rows)} weights from {before / 1e6:.2f} MB to {after / 1e6:.2f} MB"
