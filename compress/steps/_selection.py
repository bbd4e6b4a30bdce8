"""Which sites a step applies to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from compress.core.errors import UsageError
from compress.models.tower import Site, Tower
from compress.recipe.selector import Selector
from compress.recipe.steps import StepSpec


def selected(towers: Mapping[str, Tower], spec: StepSpec, default: Sequence[str]) -> Iterator[tuple[Tower, Site]]:
    """The sites that a step's `towers`, `include` and `exclude` name; `default` are the roles when `include` is empty.

    Raises UsageError for a tower or a selector that matches nothing, and where nothing is left.
    """
    chosen = [towers[kind] for kind in spec.towers if kind in towers]
    if not chosen:
        raise UsageError(f"the model has no tower {' or '.join(spec.towers)}", "towers", f"it has {', '.join(towers)}")
    include = [Selector.parse(text) for text in (spec.include or default)]
    exclude = [Selector.parse(text) for text in spec.exclude]
    everything = [(tower, site) for tower in chosen for site in tower.sites]
    for selector in [*(include if spec.include else ()), *exclude]:
        if not any(_matches(selector, tower, site) for tower, site in everything):
            raise UsageError(f"selector {selector} matches nothing", "include/exclude", _there_is(everything))
    left = [
        (tower, site)
        for tower, site in everything
        if any(_matches(each, tower, site) for each in include)
        and not any(_matches(each, tower, site) for each in exclude)
    ]
    if not left:
        raise UsageError("nothing is left to work on", "include/exclude", _there_is(everything))
    yield from left


def by_tower(chosen: Iterable[tuple[Tower, Site]], purpose: str, instead: str) -> dict[str, list[Site]]:
    """The chosen sites of each tower, for a method that watches their inputs.

    Raises UsageError for an embedding table, which has none: it says for what `purpose`, and what to use `instead`.
    """
    made: dict[str, list[Site]] = {}
    for tower, site in chosen:
        if site.op == "Gather":
            raise UsageError(f"an embedding table has no input to {purpose}", site.name, f"use {instead}")
        made.setdefault(tower.kind, []).append(site)
    return made


def _there_is(everything: Sequence[tuple[Tower, Site]]) -> str:
    """What could have been selected: 'there is vision:mlp.fc2@0..3, vision:projection'."""
    layers: dict[str, int | None] = {}
    for tower, site in everything:
        layers[f"{tower.kind}:{site.role}"] = site.layer
    told = (name if last is None else f"{name}@0..{last}" for name, last in sorted(layers.items()))
    return f"there is {', '.join(told)}" if layers else "no weight of this model plays a role that steps work on"


def _matches(selector: Selector, tower: Tower, site: Site) -> bool:
    if selector.role != site.role or selector.tower not in (None, tower.kind):
        return False
    numbers = (each.layer for each in tower.sites if each.role == site.role and each.layer is not None)
    layers = 1 + max(numbers, default=-1)
    wanted = selector.layer if selector.layer is None or selector.layer >= 0 else layers + selector.layer
    return wanted in (None, site.layer)
