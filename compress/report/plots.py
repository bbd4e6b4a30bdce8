"""Every plot of a report: slices, bytes, milliseconds, and the curves of what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compress.report import drawing, wording
from compress.report.document import Document, FileSize, Latency, Span
from compress.report.drawing import INK, OPEN, PASSED, REFERENCE, Plot
from compress.report.slices import slice_plots
from compress.report.training import training_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PARTS: Final = ("#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#999999")  # Okabe and Ito 2008
_MB = 1e6


def plots(report: Document) -> tuple[Plot, ...]:
    """Every plot the document has numbers for."""
    sizes = [each for each in report.sizes if each.candidate_bytes is not None]
    timed = [each for each in report.latency if each.ratio.median is not None]
    made = [plot for metric in _sliced(report) for plot in slice_plots(report, metric)]
    made += [_sizes(sizes)] if sizes else []
    made += [_latency(timed)] if timed else []
    made += [training_plot(step, at) for at, step in enumerate(report.steps, 1) if step.curves]
    return tuple(made)


def _sliced(report: Document) -> list[str]:
    return list(dict.fromkeys(each.metric for each in report.scores if each.slice))


def _sizes(files: list[FileSize]) -> Plot:
    """Two bars a file: the reference whole, the candidate by what its bytes are spent on."""
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(part for each in files for part in each.parts))
    colours = {part: _PARTS[at % len(_PARTS)] for at, part in enumerate(names)}
    key = {"reference": REFERENCE, **(colours or {"candidate": PASSED})}
    with drawing.figure(0.7 + 0.72 * len(files) + 0.2 * -(-len(key) // 3)) as figure:
        axes = figure.subplots()
        for at, each in enumerate(files):
            axes.barh(at - 0.19, (each.reference_bytes or 0) / _MB, height=0.33, color=REFERENCE)
            _stack(axes, each, at + 0.19, colours)
            _label(axes, each.reference_bytes, at - 0.19)
            _label(axes, each.candidate_bytes, at + 0.19)
        drawing.rows(axes, [each.tower or each.file for each in files])
        axes.margins(x=0.16)
        axes.set_xlabel("MB")
        entries = [Patch(color=colour, label=drawing.short(name, 18)) for name, colour in key.items()]
        drawing.legend(figure, entries, columns=3)
        svg = drawing.element(figure, "size on disk")
    return Plot("Size on disk", "Each model file: the reference above, below it what the candidate's bytes are.", svg)


def _stack(axes: Axes, file: FileSize, at: float, colours: dict[str, str]) -> None:
    """What is named, and the rest of the file in the colour of a file without parts."""
    left = 0.0
    rest = (file.candidate_bytes or 0) - sum(count or 0 for count in file.parts.values())
    for part, count in (*file.parts.items(), ("", max(rest, 0))):
        axes.barh(at, (count or 0) / _MB, left=left, height=0.33, color=colours.get(part, PASSED))
        left += (count or 0) / _MB


def _label(axes: Axes, count: int | None, at: float) -> None:
    axes.annotate(
        wording.size(count), ((count or 0) / _MB, at), xytext=(4, 0), textcoords="offset points", va="center",
        fontsize=9, color=INK,
    )  # fmt: skip


def _latency(timed: list[Latency]) -> Plot:
    """One row a tower and batch size; right of the line at 1 is slower than the reference."""
    with drawing.figure(0.7 + 0.34 * len(timed)) as figure:
        axes = figure.subplots()
        axes.axvline(1, color=INK, linewidth=1)
        for at, each in enumerate(timed):
            mark = ("s", OPEN) if (each.ratio.median or 0) > 1 else ("o", PASSED)
            drawing.whisker(axes, Span(low=each.ratio.min, high=each.ratio.max), at, mark[1])
            drawing.dot(axes, each.ratio.median, at, mark)
        drawing.rows(axes, [f"{each.tower}, batch {wording.count(each.batch)}" for each in timed])
        axes.set_xlabel("← faster · candidate / reference · slower →")
        svg = drawing.element(figure, "latency ratio")
    caption = "Candidate over reference, paired in one run: median with minimum and maximum."
    return Plot("Latency ratio", caption, svg)
