"""One way to draw: an SVG element that takes part in the page, whose text is text and whose colours are the page's.

Every figure is narrow, so that it stays legible on a phone, and says by shape what it says by colour. matplotlib is
imported only when a plot is drawn. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from compress.report.document import Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1b2027", "#5d6673", "#d9dde3"
REFERENCE, PASSED, FAILED, OPEN = "#7b8494", "#0068a8", "#c8480d", "#946f00"
_THEME: Final = {
    INK: "ink", SOFT: "soft", GRID: "grid", REFERENCE: "reference", PASSED: "pass", FAILED: "fail", OPEN: "open",
}  # fmt: skip
"""Colour -> the custom property of the page that takes its place, so that dark mode reaches into the plots."""

WIDTH = 4.7  # inches: 338 pt, about as wide as a phone shows
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": ["DejaVu Sans"], "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": SOFT, "axes.edgecolor": GRID, "xtick.color": SOFT, "ytick.color": INK,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "x",
    "grid.color": GRID, "grid.linewidth": 0.7, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plot:
    """A finished figure: its heading, one sentence that says what it shows, and the SVG element."""

    title: str
    caption: str
    svg: str


@contextmanager
def figure(inches: float) -> Iterator[Figure]:
    """A figure of that height in the house style, whatever a matplotlibrc says; draw and `element` it inside."""
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # a glyph its font lacks: the browser draws the text, with its own fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(WIDTH, inches), layout="constrained")


def element(drawn: Figure, label: str) -> str:
    """The figure as an SVG element labelled for screen readers, with no id that another figure's element repeats."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = label
    written = io.StringIO()
    drawn.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_[0-9]+"', "", svg)
    svg = re.sub(r'^<svg ([^>]*?) ?width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?) ?height="[^"]*"', r"<svg \1", svg)
    for colour, role in _THEME.items():
        svg = svg.replace(colour, f"var(--{role}, {colour})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1).strip()


def whisker(axes: Axes, span: Span, at: float, colour: str) -> None:
    """A thin line over an interval, where there is one."""
    if span.low is not None and span.high is not None:
        axes.plot([span.low, span.high], [at, at], color=colour, linewidth=1.5, solid_capstyle="butt")


def dot(axes: Axes, value: float | None, at: float, mark: tuple[str, str], hollow: bool = False) -> None:
    """A marker of a shape and colour at a value, where there is one."""
    if value is None:
        return
    face, size, edge = ("none", 5, 1.2) if hollow else (mark[1], 7.5 if mark[0] == "X" else 6.5, 0.6)
    axes.plot([value], [at], marker=mark[0], color=mark[1], markersize=size, markerfacecolor=face, markeredgewidth=edge)


def rows(axes: Axes, labels: list[str]) -> None:
    """Name the rows, first on top."""
    axes.set_yticks(range(len(labels)), [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def heading(axes: Axes, text: str) -> None:
    """Write over a panel, at the left end of the figure."""
    axes.set_title(" ", fontsize=9, pad=5)  # keeps the room
    written = axes.annotate(
        short(text), (0.01, 1), xycoords=("figure fraction", "axes fraction"), xytext=(0, 5),
        textcoords="offset points", color=SOFT, fontsize=9, fontweight="bold",
    )  # fmt: skip
    written.set_in_layout(False)


def percent(axes: Axes) -> None:
    """Write the numbers of the x axis, which are shares, in percent."""
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")


def legend(drawn: Figure, entries: list[Any], columns: int) -> None:
    """A key above the plot."""
    drawn.legend(
        handles=entries, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, handlelength=1.2,
        handleheight=0.9, columnspacing=1.4, borderpad=0.1,
    )  # fmt: skip


def scatter_key(entries: dict[str, tuple[str, str, bool]]) -> list[Any]:
    """Legend entries: name -> marker, colour, hollow."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [], [], linestyle="", marker=mark, color=colour, label=name, markerfacecolor="none" if hollow else colour
        )
        for name, (mark, colour, hollow) in entries.items()
    ]


def short(text: str, most: int = 24) -> str:
    """The text, cut to what fits beside a plot."""
    return text if len(text) <= most else text[: most - 1] + "…"
