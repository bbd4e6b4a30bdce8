"""Block outputs of a student and a teacher that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.models.inherited import spread
from compress.models.junctions import in_order, junction
from compress.models.tower import Tower


@dataclass(frozen=True, slots=True)
class Pair:
    """Names of a value in the student's graph and of what it should be in the teacher's."""

    student: str
    teacher: str


def outputs(tower: Tower) -> tuple[str, ...]:
    """The stream (n, tokens, width) behind each block, in order; none for graphs without residual blocks."""
    sites = in_order(tower, (site for site in tower.sites if site.role == "mlp.fc2"))
    found = (junction(tower, site) for site in sites)
    return tuple(each.joined for each in found if each.residual is not None)


def paired(student: Tower, teacher: Tower) -> tuple[Pair, ...]:
    """Each block of the student with one of the teacher's.

    A block that was left standing keeps its name: it takes the work of those that went behind it, up to the next one
    that stands. Other students are spread evenly; the last block belongs to the last.
    """
    own, other = outputs(student), outputs(teacher)
    if not own or not other or len(own) > len(other):
        return ()
    ends: Sequence[int] = _standing(own, other) if set(own) <= set(other) else spread(len(own), len(other))
    return tuple(Pair(name, other[end]) for name, end in zip(own, ends, strict=True))


def _standing(own: Sequence[str], other: Sequence[str]) -> list[int]:
    starts = [other.index(name) for name in own]
    return [*(start - 1 for start in starts[1:]), len(other) - 1]
