"""What decided, as table rows and in a sentence: the same for the page, the model card and the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from compress.report import wording
from compress.report.document import Document, Finding, Scored

ORDER: Final = ("failed", "inconclusive", "waived", "passed")
PAIRED: Final = frozenset({"non_inferior", "worst_slice"})
"""Rules that hold the bound of a drop against a margin; the others hold the value itself against a limit."""


_WAS: Final = {"failed": "failed", "inconclusive": "could not be decided"}


@dataclass(frozen=True, slots=True)
class Row:
    """One finding with the score behind it, or the tightest of the `passed` ones of a gate that has `slices`."""

    finding: Finding
    score: Scored | None
    passed: int = 0
    slices: int = 0

    @property
    def place(self) -> str:
        """The slice, 'all items', or how many slices this row stands for."""
        if self.slices:
            return f"{self.passed} of {self.slices} slices"
        return self.finding.slice or "all items"

    @property
    def reference(self) -> str:
        """The reference's value alone."""
        return self._level(self.score.reference.value if self.score else None)

    @property
    def candidate(self) -> str:
        """The candidate's value alone."""
        return self._level(self.score.candidate.value if self.score else None)

    @property
    def value(self) -> str:
        """The drop, or the value where the rule is about no drop."""
        return wording.points(self.finding.value) if self._paired else wording.number(self.finding.value)

    @property
    def compared(self) -> str:
        """The number that was held against the limit, with the decimals it takes to see the difference."""
        return self._pair[0]

    @property
    def limit(self) -> str:
        """The margin, floor or budget with its sign: `< 2.00 pt`."""
        if self.finding.threshold is None:
            return wording.NOTHING
        return f"{wording.SIGNS.get(self.finding.rule, '')} {self._pair[1]}".strip()

    @property
    def note(self) -> str:
        """Why it did not pass; for many slices, which of them is the tightest."""
        if self.slices:
            return f"tightest: {self.finding.slice}"
        return "" if self.finding.status == "passed" else excuse(self.finding)

    @property
    def _paired(self) -> bool:
        return self.finding.rule in PAIRED

    @property
    def _pair(self) -> tuple[str, str]:
        write, digits = (wording.points, 2) if self._paired else (wording.number, 4)
        return wording.apart(compared(self.finding), self.finding.threshold, write, digits)

    def _level(self, value: float | None) -> str:
        return wording.share(value) if wording.style(self.score) is wording.share else wording.number(value)


def excuse(finding: Finding) -> str:
    """Why a finding did not pass and, where it is waived, until when, why and by whom."""
    waiver = finding.waiver
    if waiver is None:
        return finding.reason
    by = f" by {waiver.by}" if waiver.by else ""
    why = f"waived until {waiver.expires}{by}: {waiver.reason}"
    return f"{why} (it {_WAS[waiver.status]}: {finding.reason})" if finding.reason else why


def compared(finding: Finding) -> float | None:
    """The number a rule held against its threshold: of a drop its bound, otherwise the value."""
    return finding.bound if finding.rule in PAIRED else finding.value


def rows(report: Document, verbose: bool = False) -> tuple[Row, ...]:
    """Failed first, then inconclusive, waived, passed; the passed slices of a gate as one row unless `verbose`."""
    made: dict[object, Row] = {}
    for at, finding in enumerate(in_order(report)):
        if verbose or finding.status != "passed" or not is_slice(finding):
            made[at] = Row(finding, report.score(finding.metric, finding.slice))
        else:
            made.setdefault(_gate(finding), _together(report, _gate(finding)))
    return tuple(made.values())


def in_order(report: Document) -> list[Finding]:
    """By status, then by gate as declared; what did not pass worst first, what did by slice, 6-8 before 9-12."""
    gates = {gate: at for at, gate in reversed(list(enumerate(map(_gate, report.findings))))}

    def place(finding: Finding) -> tuple[object, ...]:
        off = 0.0 if finding.status == "passed" else -_distance(finding)
        return ORDER.index(finding.status), gates[_gate(finding)], off, wording.order(finding.slice or "")

    return sorted(report.findings, key=place)


def passed_slices(report: Document) -> tuple[Row, ...]:
    """Every passed slice on its own, in order."""
    passed = [each for each in in_order(report) if each.status == "passed" and is_slice(each)]
    return tuple(Row(each, report.score(each.metric, each.slice)) for each in passed)


def sentence(report: Document) -> str:
    """The verdict's reason in one plain sentence."""
    if report.status == "ungated":
        why = f" ({report.reason})" if report.reason else ""
        return f"No gate was run{why}, so this artifact is not released and `compress verify` refuses it."
    total = len(report.findings)
    checks = f"{total:,} {'check' if total == 1 else 'checks'}"
    checks += f" of policy {report.policy.name}" if report.policy.name else ""
    if report.status == "passed":
        return f"{f'{checks} holds' if total == 1 else f'All {checks} hold'}, measured on the exported bytes."
    worst = _worst(report)
    if worst is None:
        return f"Of {checks} none blocks, but not every gate has one, and what is not measured cannot pass."
    counts: Counter[str] = Counter(each.status for each in report.findings)
    kinds = (("failed", "failed"), ("inconclusive", "could not be decided"), ("waived", "waived, which is not passed"))
    said = " and ".join(f"{counts[status]:,} {text}" for status, text in kinds if counts[status])
    lead = "the worst is " if counts[worst.status] > 1 else ""
    reason = excuse(worst) or "no reason was recorded"
    return f"Of {checks}, {said}: {lead}{worst.metric} on {worst.slice or 'all items'} ({reason})."


def is_slice(finding: Finding) -> bool:
    """Whether the finding is about a `dimension=slice`, rather than all items or a part of a rule (`minimum`, `p1`)."""
    return "=" in (finding.slice or "")


def _worst(report: Document) -> Finding | None:
    """The finding furthest beyond its limit, among the failed if there are any."""
    blocking = [each for each in in_order(report) if each.status != "passed"]
    return max((each for each in blocking if each.status == blocking[0].status), key=_distance, default=None)


def _distance(finding: Finding) -> float:
    """From the number that was compared to the limit, as a share of the limit."""
    number, limit = compared(finding), finding.threshold
    return 0.0 if number is None or limit is None else abs(number - limit) / (abs(limit) or 1.0)


def _gate(finding: Finding) -> tuple[str, str]:
    return finding.metric, finding.rule


def _together(report: Document, gate: tuple[str, str]) -> Row:
    slices = [each for each in report.findings if _gate(each) == gate and is_slice(each)]
    passed = [each for each in slices if each.status == "passed"]
    tightest = min(passed, key=_distance)
    return Row(tightest, report.score(tightest.metric, tightest.slice), len(passed), len(slices))
