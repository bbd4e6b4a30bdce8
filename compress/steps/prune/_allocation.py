"""Splitting one budget over towers and methods, from what each of them costs and loses alone. Pure arithmetic.

Losses are taken to add up, and shares of what is left to multiply, as a table of one measurement each has it (ZipLM,
arXiv:2302.04089, does so per layer); what is chosen has to be measured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Option:
    """One method at one level on one tower, alone: the share of the tower's cost that stays, and the loss."""

    tower: str
    method: str
    level: float
    share: float
    loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Options together: the predicted share of each tower's cost, of all, and the predicted loss."""

    options: tuple[Option, ...]
    shares: Mapping[str, float]
    share: float
    loss: float


def monotone(options: Iterable[Option]) -> list[Option]:
    """No level loses less than a lower one of the same method, nor less than nothing: that would be noise."""
    made: list[Option] = []
    worst: dict[tuple[str, str], float] = {}
    for each in sorted(options, key=lambda option: option.level):
        key = each.tower, each.method
        worst[key] = max(each.loss, worst.get(key, 0.0))
        made.append(Option(each.tower, each.method, each.level, each.share, worst[key]))
    return made


def ranked(options: Sequence[Option], costs: Mapping[str, float], budget: float, each: bool) -> list[Choice]:
    """Choices whose predicted share keeps the budget, the least loss first, and of equals the one that cuts least.

    `costs` are what the towers cost as they are. The budget holds for all of them together, or for `each`.
    """
    whole = sum(costs.values())
    fronts = [_front(options, tower, budget if each else 1.0) for tower in costs]
    made = []
    for parts in product(*fronts):
        shares = dict(zip(costs, (share for _, share, _ in parts), strict=True))
        share = sum(costs[tower] * shares[tower] for tower in costs) / whole
        if each or share <= budget:
            chosen = tuple(option for options_, _, _ in parts for option in options_)
            made.append(Choice(chosen, shares, share, sum(loss for *_, loss in parts)))
    return sorted(made, key=lambda choice: (choice.loss, -choice.share, len(choice.options)))


def _front(options: Sequence[Option], tower: str, most: float) -> list[tuple[tuple[Option, ...], float, float]]:
    """Combinations of a tower's options that no other beats in both share and loss; at most `most` of it stays."""
    methods = dict.fromkeys(option.method for option in options if option.tower == tower)
    levels = [
        [None, *(option for option in options if (option.tower, option.method) == (tower, method))]
        for method in methods
    ]
    every = []
    for row in product(*levels):
        chosen = tuple(option for option in row if option is not None)
        share = 1.0
        for option in chosen:
            share *= option.share
        every.append((chosen, share, sum(option.loss for option in chosen)))
    front: list[tuple[tuple[Option, ...], float, float]] = []
    for found in sorted((row for row in every if row[1] <= most), key=lambda row: (row[2], row[1], len(row[0]))):
        if not front or found[1] < front[-1][1]:
            front.append(found)
    return front
