"""Two artifacts side by side: what both measured, and where their gates came out differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from compress.report import wording
from compress.report.document import Document, Finding, Scored


@dataclass(frozen=True, slots=True)
class Pair:
    """One number of both; None where an artifact does not have it. A `share` is a proportion."""

    what: str
    a: float | None
    b: float | None
    share: bool = False

    @property
    def difference(self) -> float | None:
        """`b - a` where both are known."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A gate, on all items or on a slice, that came out differently; None where an artifact was not asked."""

    metric: str
    rule: str
    slice: str | None
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What stands side by side, and `notes` on what makes it less than comparable."""

    a: Document
    b: Document
    notes: tuple[str, ...]
    sizes: tuple[Pair, ...]
    latency: tuple[Pair, ...]
    scores: tuple[Pair, ...]
    findings: tuple[Disagreement, ...]

    def to_data(self) -> dict[str, Any]:
        """JSON-like data."""
        made: dict[str, Any] = {"version": 1, "a": _identity(self.a), "b": _identity(self.b), "notes": list(self.notes)}
        for name, pairs in (("sizes", self.sizes), ("latency", self.latency), ("scores", self.scores)):
            made[name] = [asdict(pair) | {"difference": pair.difference} for pair in pairs]
        made["findings"] = [asdict(each) for each in self.findings]
        return made


def compare(a: Document, b: Document) -> Comparison:
    """Match two reports: bytes by tower, time by tower and batch size, scores and findings by slice."""
    return Comparison(
        a, b, tuple(_notes(a, b)),
        sizes=_pairs(_bytes(a), _bytes(b)),
        latency=_pairs(_ratios(a), _ratios(b)),
        scores=_pairs(_scores(a), _scores(b), shares=_shares(a) | _shares(b)),
        findings=tuple(_disagreements(a, b)),
    )  # fmt: skip


def _notes(a: Document, b: Document) -> Iterable[str]:
    questions: tuple[tuple[str, Callable[[Document], object]], ...] = (
        ("They were made from different models", lambda report: (report.model.source, report.model.revision)),
        ("They were gated with different policies", lambda report: report.policy.digest),
        ("They were measured on different processors", lambda report: report.environment.cpu),
    )
    return (f"{said}: compare with care." for said, ask in questions if ask(a) != ask(b))


def _bytes(report: Document) -> dict[str, float | None]:
    counts: dict[str, float | None] = {}
    for each in report.sizes:
        before, tower = counts.get(each.tower or each.file, 0), each.tower or each.file
        counts[tower] = None if before is None or each.candidate_bytes is None else before + each.candidate_bytes
    return counts


def _ratios(report: Document) -> dict[str, float | None]:
    return {f"{each.tower}, batch {each.batch}": each.ratio.median for each in report.latency}


def _scores(report: Document) -> dict[str, float | None]:
    return {_name(each): each.candidate.value for each in report.scores}


def _name(scored: Scored) -> str:
    return f"{scored.metric}, {scored.place or 'all items'}"


def _shares(report: Document) -> frozenset[str]:
    return frozenset(_name(each) for each in report.scores if wording.style(each) is wording.share)


def _pairs(
    a: dict[str, float | None], b: dict[str, float | None], shares: frozenset[str] = frozenset()
) -> tuple[Pair, ...]:
    return tuple(Pair(what, a.get(what), b.get(what), what in shares) for what in a | b)


def _disagreements(a: Document, b: Document) -> Iterable[Disagreement]:
    first, second = _statuses(a.findings), _statuses(b.findings)
    for key in first | second:
        if first.get(key) != second.get(key):
            yield Disagreement(*key, first.get(key), second.get(key))


def _statuses(findings: Iterable[Finding]) -> dict[tuple[str, str, str | None], str]:
    return {(each.metric, each.rule, each.slice): each.status for each in findings}


def _identity(report: Document) -> dict[str, Any]:
    return {
        "name": report.name,
        "digest": report.digest,
        "status": report.status,
        "exit_code": report.exit_code,
        "policy": report.policy.model_dump(),
        "recipe": report.recipe.model_dump(),
    }
