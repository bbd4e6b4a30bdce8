"""Error rates of the gates, simulated through the decision: how often they pass what they should, and should not.

    python benchmarks/gates.py            # a few minutes on one core
    python benchmarks/gates.py --json     # the same rows as JSON
    python benchmarks/gates.py --tiny     # a few seconds, coarser

A row of draws holds unless its promise is broken by more than the 99 % Monte-Carlo interval of the rate explains; those
of 500 draws or fewer must keep it outright. Rows without draws are sums over all tables: nothing is left to chance.
"no, known" is a promise that is not kept, for the reason that docs/decisions/013 gives. Ends 1 for any other row that
does not hold. Every draw has a fixed seed.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

import numpy as np
from scipy.stats import binomtest

from compress.gates import sample_size
from compress.gates.decision import decide
from compress.gates.outcomes import Outcomes
from compress.gates.policy import Policy
from compress.gates.verdict import Finding

FEW: Final = 500
"""Draws of what needs a bootstrap: too few for their Monte-Carlo interval to excuse much."""

Draw = Callable[[np.random.Generator], Outcomes]


@dataclass(frozen=True)
class Row:
    """How many of `draws` did what the row is about (0: an exact sum), and the promise their share is held against."""

    what: str
    items: str
    promise: str
    draws: int
    rate: float
    low: float
    high: float
    holds: bool
    known: bool = False


@dataclass(frozen=True)
class Case:
    """Right and wrong items of which `lost` and `gained` shares change, under a gate with this margin."""

    n: int
    margin: float
    lost: float
    gained: float


def judged(outcomes: Outcomes, margin: float) -> Finding:
    """The finding of a policy with one gate."""
    gate = {"metric": "reading.accuracy", "rule": "non_inferior", "margin": margin, "because": "it is simulated"}
    told = {"version": 1, "name": "simulated", "tasks": {"reading": {"split": "release"}}, "gates": [gate]}
    return decide(Policy.model_validate(told), {"reading.accuracy": outcomes}, "0" * 64).findings[0]


@functools.cache
def table(n: int, lost: int, gained: int, margin: float) -> Finding:
    """The finding on n items of which so many changed; whatever else they are, the verdict is the same."""
    reference, candidate = np.ones(n), np.ones(n)
    candidate[:lost], reference[lost : lost + gained] = 0.0, 0.0
    return judged(Outcomes(tuple(map(str, range(n))), reference, candidate), margin)


def counted(what: str, case: Case, draws: int, promise: tuple[Literal["<=", ">="], float]) -> Row:
    """Draw tables of changes and count those that pass."""
    shares = (case.lost, case.gained, max(0.0, 1 - case.lost - case.gained))
    tables = np.random.default_rng(case.n).multinomial(case.n, shares, size=draws)
    passed = sum(table(case.n, int(b), int(c), case.margin).status == "passed" for b, c, _ in tables)
    return row(what, f"{case.n:,}", (passed, draws), promise)


def resampled(what: str, items: str, draw: Draw, draws: int) -> Row:
    """Draw outcomes that need a bootstrap, under a margin of two points that is the true drop."""
    passed = sum(judged(draw(np.random.default_rng(seed)), 0.02).status == "passed" for seed in range(draws))
    return row(what, items, (passed, draws), ("<=", 0.05))


def row(what: str, items: str, seen: tuple[int, int], promise: tuple[Literal["<=", ">="], float]) -> Row:
    """A row with its Monte-Carlo interval (Clopper-Pearson, 99 %)."""
    (hits, draws), (side, limit) = seen, promise
    ends = binomtest(hits, draws).proportion_ci(0.99, method="exact")
    if draws <= FEW:
        holds = hits >= limit * draws if side == ">=" else hits <= limit * draws
    else:
        holds = bool(ends.low <= limit if side == "<=" else ends.high >= limit)
    return Row(what, items, f"{side} {100 * limit:g} %", draws, hits / draws, float(ends.low), float(ends.high), holds)


def false_passes(draws: int) -> Iterator[Row]:
    """A candidate whose true drop is the margin."""
    for margin, n, discordances in (
        (0.01, 3000, (0.01, 0.05, 0.10)),
        (0.02, 135, (0.02, 0.05, 0.10)),
        (0.02, 300, (0.02, 0.05, 0.10)),
        (0.02, 861, (0.02, 0.05, 0.10)),
        (0.05, 167, (0.05, 0.10, 0.20)),
    ):
        for share in discordances:
            case = Case(n, margin, (share + margin) / 2, (share - margin) / 2)
            gained = "nothing gained" if share == margin else f"{100 * share:g} % differ"
            yield counted(f"drop = margin of {100 * margin:g} pt, {gained}", case, draws, ("<=", 0.05))


def clustered(groups: int, size: int, changes: tuple[float, float], rng: np.random.Generator) -> Outcomes:
    """Right and wrong items in groups that change together: these shares of the groups are lost and gained."""
    lost, gained = changes
    kind = np.repeat(rng.choice([1.0, -1.0, 0.0], size=groups, p=[lost, gained, 1 - lost - gained]), size)
    labels = tuple(np.repeat(np.arange(groups), size).astype(str))
    reference, candidate = (kind >= 0).astype(float), (kind <= 0).astype(float)
    return Outcomes(tuple(map(str, range(groups * size))), reference, candidate, clusters=labels)


def numbers(n: int, drop: float, rng: np.random.Generator) -> Outcomes:
    """Error rates of texts, weighed by their length: most are read alike, some are lost, with a long tail."""
    lengths = rng.integers(4, 30, size=n).astype(float)
    noise = rng.normal(0, 0.02, size=n) + rng.exponential(0.1, size=n) * (rng.random(n) < 0.2) - 0.02
    reference = rng.uniform(0.6, 1.0, size=n)
    return Outcomes(tuple(map(str, range(n))), reference, reference - drop - noise, binary=False, weights=lengths)


def false_passes_resampled(draws: int) -> Iterator[Row]:
    """The same where items come in clusters, or are numbers."""
    what = "drop = margin of 2 pt, clusters change as one"
    for groups, size, changes in ((60, 3, (0.06, 0.04)), (150, 2, (0.11, 0.09)), (250, 5, (0.05, 0.03))):
        yield resampled(what, f"{groups} x {size}", functools.partial(clustered, groups, size, changes), draws)
    for n in (100, 200, 400, 800):
        made = resampled("drop = margin of 2 pt, long tail", f"{n}", functools.partial(numbers, n, 0.02), draws)
        yield replace(made, known=True)


def exactly(tiny: bool) -> Iterator[Row]:
    """The highest false-pass rate over a grid of items and discordances, each summed over all tables."""
    for margin in (0.01, 0.02, 0.05):
        most = 300 if tiny else 1200
        cases = [
            (sample_size.pairs_power(n, margin, 0.95, margin * times, margin), n, times)
            for n in range(20, most, 45 if tiny else 15)
            for times in (1, 1.01, 1.25, 1.5, 2, 3, 5, 8)
        ]
        rate, n, times = max(cases)
        what = f"drop = margin of {100 * margin:g} pt, highest of {len(cases)}: {100 * margin * times:.3g} % differ"
        yield Row(what, f"{n:,}", "<= 5 %", 0, rate, rate, rate, rate <= 0.05)


def power(draws: int) -> Iterator[Row]:
    """A candidate as good as the reference, at the number of items that `compress plan` names."""
    for margin, share in ((0.02, 0.02), (0.02, 0.05), (0.02, 0.10), (0.05, 0.10)):
        n = sample_size.pairs_needed(margin, 0.95, share)
        case = Case(n or 0, margin, share / 2, share / 2)
        what = f"equal, margin {100 * margin:g} pt, {100 * share:g} % differ"
        yield counted(what, case, draws, (">=", 0.80))


def small_samples(draws: int) -> Iterator[Row]:
    """Two points lost, judged on 100 items; and an equal candidate on as many items as the finding then asked for."""
    for lost, gained in ((0.02, 0.0), (0.03, 0.01)):
        rng = np.random.default_rng(100)
        tables = rng.multinomial(100, (lost, gained, 1 - lost - gained), size=draws)
        blocked = sum(table(100, int(b), int(c), 0.02).status != "passed" for b, c, _ in tables)
        told = f"true drop 2 pt is blocked ({100 * lost:g} % lost, {100 * gained:g} % gained)"
        yield row(told, "100", (blocked, draws), (">=", 0.95))
    rng, share, passed, asked = np.random.default_rng(101), 0.05, 0, 0
    for b, c, _ in rng.multinomial(100, (share / 2, share / 2, 1 - share), size=draws):
        if needed := table(100, int(b), int(c), 0.02).needed:
            more = rng.multinomial(needed, (share / 2, share / 2, 1 - share))
            passed += table(needed, int(more[0]), int(more[1]), 0.02).status == "passed"
            asked += 1
    yield row("equal, on as many items as an inconclusive finding asked for", "asked", (passed, asked), (">=", 0.80))


def rows(tiny: bool = False) -> Iterator[Row]:
    """Every row; `tiny` draws a tenth or less."""
    counts, few = (400, 20) if tiny else (4000, FEW)
    yield from exactly(tiny)
    yield from false_passes(counts)
    yield from false_passes_resampled(few)
    yield from power(counts)
    yield from small_samples(200)


def shown(made: list[Row]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    view = Table("Candidate", "Items", "Promise", "Draws", "Passed or blocked", "Holds", title="Error rates of gates")
    for each in made:
        spread = f" ({100 * each.low:.2f} to {100 * each.high:.2f})" if each.draws else ""
        draws, no = f"{each.draws:,}" if each.draws else "exact", "no, known" if each.known else "NO"
        view.add_row(
            *(each.what, each.items, each.promise, draws, f"{100 * each.rate:.2f} %{spread}"),
            "yes" if each.holds else no,
        )
    Console().print(view)


def main() -> int:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--tiny", action="store_true", help="a tenth of the draws, or less")
    given = parser.parse_args()
    made = list(rows(given.tiny))
    if given.json:
        print(json.dumps([asdict(each) for each in made], indent=1))
    else:
        shown(made)
    return 0 if all(each.holds or each.known for each in made) else 1


if __name__ == "__main__":
    sys.exit(main())
