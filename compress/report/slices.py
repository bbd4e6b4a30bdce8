"""Slice plots: reference and candidate, and the drop with its bound and margin, one row a slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from compress.report import drawing, wording
from compress.report.document import Document, Finding, Scored, Span
from compress.report.drawing import FAILED, OPEN, PASSED, REFERENCE, SOFT, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS: Final = {"passed": ("o", PASSED), "failed": ("X", FAILED), "inconclusive": ("^", OPEN), "waived": ("v", OPEN)}
_DROP_RULES: Final = {"non_inferior", "worst_slice"}
_ROW = 0.25  # inches


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a slice plot: a score, and the finding decided on it where a gate asked for one."""

    score: Scored
    finding: Finding | None

    @property
    def label(self) -> str:
        return self.score.slice or "all items"

    @property
    def dimension(self) -> str:
        return self.score.dimension or ""

    @property
    def mark(self) -> tuple[str, str]:
        """Shape and colour."""
        return _MARKS[self.finding.status] if self.finding else ("o", PASSED)

    @property
    def drop(self) -> Span:
        """The number the gate was decided on, with the score's interval; the score's own drop without a gate."""
        scored = self.score.drop or Span()
        if self.finding is None or self.finding.value is None:
            return scored
        return Span(value=self.finding.value, low=scored.low, high=scored.high)


def slice_plots(report: Document, metric: str) -> list[Plot]:
    """Both plots of one metric, as far as its numbers go."""
    lines = _lines(report, metric)
    measured = [line for line in lines if line.score.candidate.value is not None]
    dropped = [line for line in lines if line.drop.value is not None]
    unit = ", %" if _is_share(lines) else ""
    made = []
    if measured:
        caption = "Reference (hollow) and candidate (filled), with intervals."
        made.append(Plot(f"{metric}, slice by slice", caption, _panels(measured, _both, f"{metric}{unit}")))
    if dropped:
        caption = "The heavy end of each bar is the bound that was decided on: it has to stay below the dashed margin."
        made.append(Plot(f"Drop of {metric}", caption, _panels(dropped, _drop, f"drop of {metric}, points")))
    return made


def _lines(report: Document, metric: str) -> list[Line]:
    """The whole set first, then every dimension with its slices in order."""
    decided = {each.slice: each for each in report.findings if each.metric == metric and each.rule in _DROP_RULES}
    ordered = sorted(
        (each for each in report.scores if each.metric == metric),
        key=lambda each: (each.slice is not None, each.dimension or "", wording.order(each.slice or "")),
    )
    return [Line(each, decided.get(each.place)) for each in ordered]


def _both(axes: Axes, line: Line, at: float) -> None:
    mark = line.mark
    drawing.whisker(axes, line.score.reference, at - 0.17, REFERENCE)
    drawing.whisker(axes, line.score.candidate, at + 0.17, mark[1])
    drawing.dot(axes, line.score.reference.value, at - 0.17, ("D", REFERENCE), hollow=True)
    drawing.dot(axes, line.score.candidate.value, at + 0.17, mark)


def _drop(axes: Axes, line: Line, at: float) -> None:
    mark, colour = line.mark
    value, finding = line.drop.value, line.finding
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=0)
    if finding and finding.threshold is not None:
        limit = finding.threshold
        axes.plot([limit, limit], [at - 0.5, at + 0.5], color=FAILED, linestyle=(0, (4, 2)), linewidth=1.4)
    if finding and finding.bound is not None and value is not None:
        # one-sided: what is decided on is the bound, so the other end of the interval is left out
        axes.plot([value, finding.bound], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([finding.bound], [at], marker="|", markersize=9, markeredgewidth=2, color=colour)
    else:
        drawing.whisker(axes, line.drop, at, colour)
    drawing.dot(axes, value, at, (mark, colour))


def _panels(lines: list[Line], draw: Callable[[Axes, Line, float], None], label: str) -> str:
    """One panel a dimension, one row a slice, all on one x axis."""
    groups = [(dimension, list(members)) for dimension, members in groupby(lines, lambda line: line.dimension)]
    inches = sum(len(members) * _ROW + 0.3 for _, members in groups) + 0.85
    with drawing.figure(inches) as figure:
        heights = [len(members) + 0.2 for _, members in groups]
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (dimension, members) in zip(panels, groups, strict=True):
            for at, line in enumerate(members):
                draw(axes, line, at)
            drawing.rows(axes, [line.label for line in members])
            if dimension:
                drawing.heading(axes, dimension)
            _embolden(axes, members)
        panels[-1].set_xlabel(drawing.short(label, 48))
        if _is_share(lines):
            drawing.percent(panels[-1])
        drawing.legend(figure, drawing.scatter_key(_key(lines, draw is _both)), columns=2)
        return drawing.element(figure, label)


def _is_share(lines: list[Line]) -> bool:
    return any(wording.style(line.score) is wording.share or line.finding for line in lines)


def _key(lines: list[Line], with_reference: bool) -> dict[str, tuple[str, str, bool]]:
    """Only the marks that are in the plot."""
    used = {line.finding.status if line.finding else "candidate": line.mark for line in lines}
    reference = {"reference": ("D", REFERENCE, True)} if with_reference else {}
    ordered = [name for name in ("candidate", "passed", "failed", "inconclusive", "waived") if name in used]
    return reference | {name: (*used[name], False) for name in ordered}


def _embolden(axes: Axes, members: list[Line]) -> None:
    """Set the names of slices that did not pass in their colour and in bold."""
    for label, line in zip(axes.get_yticklabels(), members, strict=True):
        if line.finding and line.finding.status != "passed":
            label.set(color=line.mark[1], fontweight="bold")
