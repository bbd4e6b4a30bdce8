"""What `prune.auto` can turn: the other prune methods, each at a level, on copies of towers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Final, Literal, NamedTuple

from compress.core import names
from compress.core.errors import UsageError
from compress.models.tower import Encoder, Tower, copied
from compress.steps._walk import Tokens
from compress.steps.step import Context, SiteReport

Method = Literal["depth", "qk", "heads", "vo", "mlp"]
METHODS: Final[tuple[Method, ...]] = ("depth", "qk", "heads", "vo", "mlp")
"""In the order in which they are applied: what is fitted last makes up for what went before."""

Layers = Mapping[str, frozenset[int]]
"""Layers that may be pruned, by tower."""


class Setting(NamedTuple):
    """A method at a level on a tower: on all of its layers that may be pruned, or on one."""

    tower: str
    method: Method
    level: float
    layer: int | None = None

    @property
    def words(self) -> str:
        """`mlp 50 %`, or `mlp 50 % of layer 2`."""
        return f"{self.method} {100 * self.level:g} %{'' if self.layer is None else f' of layer {self.layer}'}"


def turn(
    encoder: Encoder, settings: Sequence[Setting], free: Layers, context: Context, tokens: Tokens = "by_gradient"
) -> list[SiteReport]:
    """Apply settings to an encoder, in place; rows of the same site become one.

    Each is fitted to what the towers gave before the first, so that it also makes up for those before it.
    """
    several = {kind for kind, count in Counter(each.tower for each in settings).items() if count > 1}
    whole = {kind: tower.graph for kind, tower in copied(encoder, several).towers.items() if kind in several}
    context = replace(context, whole=whole)
    order = sorted(settings, key=lambda each: (each.tower, METHODS.index(each.method), each.layer or 0))
    rows: list[SiteReport] = []
    for each in order:
        module = names.load("compress.steps", f"prune.{each.method}")
        include = _include(encoder.towers[each.tower], module.ROLES, _reached(each, free))
        if include:
            told = {"tokens": tokens} if "tokens" in module.Spec.model_fields else {}
            spec = module.Spec(towers=(each.tower,), ratio=each.level, include=include, **told)
            rows += module.apply(encoder, spec, context).rows
    return _merged(rows)


def settings(
    encoder: Encoder, methods: Sequence[Method], levels: Sequence[float], free: Layers, by_layer: bool
) -> list[Setting]:
    """Everything that can be tried on its own; whole blocks go by the tower even where all else goes by the layer.

    Of levels that take the same number of blocks away the lowest is enough.
    """
    made = []
    blocks = set()
    for kind, method, level in product(free, methods, sorted(levels)):
        if method == "depth":
            gone = _blocks(encoder.towers[kind], level)
            if 0 < gone <= len(free[kind]) and (kind, gone) not in blocks:
                blocks.add((kind, gone))
                made.append(Setting(kind, method, level))
            continue
        each = [Setting(kind, method, level, layer) for layer in (sorted(free[kind]) if by_layer else [None])]
        made += [setting for setting in each if _possible(encoder, setting, free)]
    return made


def _blocks(tower: Tower, level: float) -> int:
    """How many blocks `prune.depth` takes away at a level."""
    count = len({site.layer for site in tower.sites if site.layer is not None and site.role.startswith("mlp.")})
    return count - max(1, round((1 - level) * count))


def _possible(encoder: Encoder, setting: Setting, free: Layers) -> bool:
    """Whether it takes something away at all, and leaves something, as far as the number of heads tells."""
    roles = names.load("compress.steps", f"prune.{setting.method}").ROLES
    return bool(_include(encoder.towers[setting.tower], roles, _reached(setting, free)))


def _reached(setting: Setting, free: Layers) -> frozenset[int]:
    return free[setting.tower] if setting.layer is None else frozenset((setting.layer,))


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
