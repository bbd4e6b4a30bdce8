"""What `prune.auto` can turn: the other prune methods, each at a level, on copies of towers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from compress.core import names
from compress.core.errors import UsageError
from compress.models.tower import Encoder, Tower
from compress.steps.step import Context, SiteReport

Method = Literal["depth", "qk", "heads", "vo", "mlp"]
METHODS: Final[tuple[Method, ...]] = ("depth", "qk", "heads", "vo", "mlp")
"""In the order in which they are applied: what is fitted last makes up for what went before."""

Layers = Mapping[str, frozenset[int]]
"""Layers that may be pruned, by tower."""


def turn(
    encoder: Encoder, settings: Sequence[tuple[str, str, float]], free: Layers, context: Context
) -> list[SiteReport]:
    """Apply settings of (tower, method, level) to an encoder, in place; rows of the same site become one."""
    order = sorted(settings, key=lambda each: (each[0], METHODS.index(each[1])))
    rows: list[SiteReport] = []
    for kind, method, level in order:
        module = names.load("compress.steps", f"prune.{method}")
        include = _include(encoder.towers[kind], module.ROLES, free[kind])
        if include:
            spec = module.Spec(towers=(kind,), ratio=level, include=include)
            rows += module.apply(encoder, spec, context).rows
    return _merged(rows)


def possible(encoder: Encoder, kind: str, method: Method, level: float, free: Layers) -> bool:
    """Whether a level takes something away at all, and leaves something, as far as numbers of blocks and heads tell."""
    tower = encoder.towers[kind]
    if method == "depth":
        count = len({site.layer for site in tower.sites if site.layer is not None and site.role.startswith("mlp.")})
        return 0 < count - max(1, round((1 - level) * count)) <= len(free[kind])
    return bool(_include(tower, names.load("compress.steps", f"prune.{method}").ROLES, free[kind]))


def _include(tower: Tower, roles: Sequence[str], free: frozenset[int]) -> tuple[str, ...]:
    """Selectors of the layers that are there and may be pruned."""
    found = {(site.role, site.layer): None for site in tower.sites if site.role in roles and site.layer in free}
    return tuple(f"{tower.kind}:{role}@{layer}" for role, layer in found)


def _merged(rows: Iterable[SiteReport]) -> list[SiteReport]:
    made: dict[tuple[str, str], SiteReport] = {}
    for row in rows:
        before = made.get((row.tower, row.site))
        if before is not None:
            made[row.tower, row.site] = replace(
                row,
                treatment=f"{before.treatment}; then {row.treatment}",
                bytes_before=before.bytes_before,
                error=max(before.error, row.error),
                removed=", ".join(filter(None, (before.removed, row.removed))),
            )
        else:
            made[row.tower, row.site] = row
    return list(made.values())


def nothing_goes(error: UsageError) -> bool:
    """Whether a method says that a level is too small to take anything away."""
    return "goes: the count that stays is that of all" in error.what
