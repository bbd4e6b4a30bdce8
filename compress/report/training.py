"""The curves of a step that trained: losses, rates and scores by the number of optimizer steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from compress.report import drawing
from compress.report.document import Curve, Step
from compress.report.drawing import GRID, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
_DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_POINTS: Final = 200
"""Of a longer curve every point is the mean of several, so that a page stays small."""


def training_plot(step: Step, number: int) -> Plot:
    """A panel for each kind of curve, which the last word of its name says: loss, rate, accuracy."""
    from matplotlib.lines import Line2D

    panels: dict[str, list[Curve]] = {}
    for curve in step.curves:
        panels.setdefault((curve.name.split() or ["value"])[-1], []).append(curve)
    with drawing.figure(0.5 + 1.55 * len(panels)) as figure:
        every = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
        for axes, (kind, curves) in zip(every, panels.items(), strict=True):
            _panel(axes, curves)
            drawing.heading(axes, kind)
            if len(curves) > 1:
                entries = [
                    Line2D([], [], color=colour, linestyle=dash, label=drawing.short(curve.name, 20))
                    for curve, colour, dash in zip(curves, _LINES, _DASHES, strict=False)
                ]
                axes.legend(handles=entries, frameon=False, fontsize=8, ncols=2, loc="upper right")
        every[-1].set_xlabel("optimizer steps")
        svg = drawing.element(figure, f"training of step {number}, {step.use}")
    longest = max((len(curve.values) for curve in step.curves), default=0)
    means = f" Of long curves each point is a mean of {-(-longest // _POINTS)} values." if longest > _POINTS else ""
    return Plot(f"Training: {step.use}", f"What step {number} watched while it trained.{means}", svg)


def _panel(axes: Axes, curves: list[Curve]) -> None:
    for curve, colour, dash in zip(curves, _LINES, _DASHES, strict=False):
        steps, values = _short(curve)
        few = "o" if len(steps) < 12 else None
        axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.3, marker=few, markersize=3.5)
    found = [value for curve in curves for value in curve.values if value is not None]
    if curves[0].name.endswith("loss") and found and min(found) > 0 and max(found) > 50 * min(found):
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=GRID, linewidth=0.7)


def _short(curve: Curve) -> tuple[list[float], list[float]]:
    """The points of a curve that are numbers, at most some hundred of them."""
    pairs = [(step, value) for step, value in zip(curve.steps, curve.values, strict=False) if value is not None]
    parts = np.array_split(np.array(pairs, np.float64).reshape(-1, 2), min(max(len(pairs), 1), _POINTS))
    means = [part.mean(0) for part in parts if len(part)]
    return [float(each[0]) for each in means], [float(each[1]) for each in means]
