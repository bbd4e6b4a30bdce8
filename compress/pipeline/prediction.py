"""What more or less of a recipe's pruning would leave: parameters, multiplications, and predicted latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compress.bench import latency
from compress.core.errors import CompressError
from compress.core.progress import Progress
from compress.recipe.schema import Step

SCALES: Final = (0.5, 1.0, 1.5, 2.0)
"""How much of each step's ratio: as the recipe says, and around it."""

MOST: Final = 0.9
"""A ratio beyond which nothing is predicted."""


@dataclass(frozen=True, slots=True)
class Left:
    """Of one tower, as shares of what it was: `latency` is predicted, None where nothing could be timed."""

    parameters: float
    work: float
    latency: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The ratios of all prune steps in turn, and what they leave of each tower."""

    ratios: tuple[float, ...]
    towers: Mapping[str, Left]


def times(reference: Path, pruned: Path, progress: Progress) -> dict[str, float]:
    """A quick look: each pruned float tower's time for one item over the reference's; empty where neither runs here.

    The fastest rounds are compared: so few say nothing about the others on a busy machine.
    """
    try:
        rows = latency.in_turn((reference, pruned), latency.Plan(batches=(1,), pairs=9, progress=progress))
    except CompressError:
        return {}
    return {row["tower"]: min(new for _, new in row["times"]) / min(old for old, _ in row["times"]) for row in rows}


def predictions(steps: Sequence[Step], towers: Mapping[str, Left]) -> tuple[Prediction, ...]:
    """Around what a recipe's prune steps leave of each tower: in proportion to their ratios, none leaving all of it.

    Rounding to multiples is left out. Empty where a step has no ratio to scale.
    """
    ratios = [getattr(step.spec, "ratio", None) for step in steps if step.use.startswith("prune.")]
    if not ratios or None in ratios:
        return ()
    known = [ratio for ratio in ratios if ratio is not None]
    return tuple(
        Prediction(
            tuple(scale * ratio for ratio in known), {kind: _scaled(left, scale) for kind, left in towers.items()}
        )
        for scale in SCALES
        if scale * max(known) <= MOST
    )


def _scaled(left: Left, scale: float) -> Left:
    return Left(
        1 - scale * (1 - left.parameters),
        1 - scale * (1 - left.work),
        None if left.latency is None else 1 - scale * (1 - left.latency),
    )
