"""Splitting one budget over towers and methods, from what each of them costs and loses alone. Pure arithmetic.

Losses are taken to add up, as a table of one measurement each has it (ZipLM, arXiv:2302.04089). Of what is left, shares
of several methods multiply, for one takes its part of what the other left; parts that layers lose add up, for they lie
side by side. What is chosen has to be measured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from compress.steps.prune._levers import Setting

LONGEST: Final = 400
"""Combinations of a tower that are followed up at most; with more, the best of every small step of the share."""


@dataclass(frozen=True, slots=True)
class Option:
    """A setting alone: the share of its tower's cost that stays, and the loss."""

    setting: Setting
    share: float
    loss: float

    @property
    def tower(self) -> str:
        """Whose cost it is."""
        return self.setting.tower


@dataclass(frozen=True, slots=True)
class Choice:
    """Options together: the predicted share of each tower's cost, of all, and the predicted loss."""

    options: tuple[Option, ...]
    shares: Mapping[str, float]
    share: float
    loss: float


@dataclass(frozen=True, slots=True)
class _Part:
    """Options of one tower together: the share of its cost that stays, and the loss."""

    options: tuple[Option, ...] = ()
    share: float = 1.0
    loss: float = 0.0


def monotone(options: Iterable[Option]) -> list[Option]:
    """No level loses less than a lower one of the same method, nor less than nothing: that would be noise."""
    made: list[Option] = []
    worst: dict[tuple[str, str, int | None], float] = {}
    for each in sorted(options, key=lambda option: option.setting.level):
        key = each.tower, each.setting.method, each.setting.layer
        worst[key] = max(each.loss, worst.get(key, 0.0))
        made.append(Option(each.setting, each.share, worst[key]))
    return made


def ranked(options: Sequence[Option], costs: Mapping[str, float], budget: float, each: bool) -> list[Choice]:
    """Choices whose predicted share keeps the budget, the least loss first, and of equals the one that cuts least.

    `costs` are what the towers cost as they are. The budget holds for all of them together, or for `each`.
    """
    whole = sum(costs.values())
    most = budget if each else 1.0
    fronts = [[part for part in _front(options, tower) if part.share <= most] for tower in costs]
    made = []
    for parts in product(*fronts):
        shares = dict(zip(costs, (part.share for part in parts), strict=True))
        share = sum(costs[tower] * shares[tower] for tower in costs) / whole
        if each or share <= budget:
            chosen = tuple(option for part in parts for option in part.options)
            made.append(Choice(chosen, shares, share, sum(part.loss for part in parts)))
    return sorted(made, key=lambda choice: (choice.loss, -choice.share, len(choice.options)))


def _front(options: Sequence[Option], tower: str) -> list[_Part]:
    """Combinations of a tower's options that no other beats in both share and loss."""
    own = [option for option in options if option.tower == tower]
    whole = [_Part()]
    for method in dict.fromkeys(option.setting.method for option in own):
        alone = _side_by_side([option for option in own if option.setting.method == method])
        whole = _unbeaten(
            _Part((*a.options, *b.options), a.share * b.share, a.loss + b.loss) for a in whole for b in alone
        )
    return whole


def _side_by_side(options: Sequence[Option]) -> list[_Part]:
    """Combinations of one method's options, at most one for a layer."""
    front = [_Part()]
    for layer in dict.fromkeys(option.setting.layer for option in options):
        levels = [option for option in options if option.setting.layer == layer]
        more = [_Part((*a.options, b), a.share - (1 - b.share), a.loss + b.loss) for a in front for b in levels]
        front = _unbeaten([*front, *more])
    return front


def _unbeaten(parts: Iterable[_Part]) -> list[_Part]:
    front: list[_Part] = []
    for found in sorted(parts, key=lambda part: (part.loss, part.share, len(part.options))):
        if not front or found.share < front[-1].share:
            front.append(found)
    if len(front) <= LONGEST:
        return front
    spread = (front[0].share - front[-1].share) / (LONGEST - 1)
    by_step = {round((part.share - front[-1].share) / spread): part for part in reversed(front)}
    return sorted(by_step.values(), key=lambda part: part.loss)
