"""The report as one HTML file: nothing is loaded from elsewhere and nothing in it runs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from compress.report import ladder, plots, rows, summary, templates, wording
from compress.report.document import Document


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure: what it is, the number, and what stands behind it."""

    name: str
    value: str
    detail: str


def render(report: Document) -> str:
    """The whole page. The same document gives the same bytes."""
    return templates.html(
        "page.html.jinja",
        report=report,
        sign=summary.SIGNS[report.status],
        title=summary.TITLES[report.status],
        sentence=rows.sentence(report),
        tiles=tiles(report),
        rows=rows.rows(report),
        folded=rows.passed_slices(report),
        plots=[(plot, Markup(plot.svg)) for plot in plots.plots(report)],  # noqa: S704 - the SVG writer escapes text
        because=because(report),
        unused=summary.unused(report),
        signs=summary.SIGNS,
        ladder=ladder,
        w=wording,
    )


def tiles(report: Document) -> tuple[Tile, ...]:
    """Size, loss, time and the checks at a glance."""
    return _size(report), _loss(report), _time(report), _checks(report)


def _size(report: Document) -> Tile:
    before, after = total(report)
    smaller = wording.ratio(after, before)
    detail = f"{wording.size(before)} → {wording.size(after)}" if after is not None else ""
    return Tile("Size", wording.NOT_MEASURED if smaller is None else wording.share(smaller), detail)


def _loss(report: Document) -> Tile:
    drops = [(each.drop.value, each) for each in report.scores if each.drop and each.drop.value is not None]
    if not drops:
        return Tile("Largest drop", wording.NOT_MEASURED, "")
    value, worst = max(drops, key=lambda each: each[0])
    return Tile("Largest drop", wording.points(value), f"{worst.metric}, {worst.place or 'all items'}")


def _time(report: Document) -> Tile:
    ratios = [(each.ratio.median, each) for each in report.latency if each.ratio.median is not None]
    if not ratios:
        return Tile("Slowest tower", wording.NOT_MEASURED, "")
    value, slowest = max(ratios, key=lambda each: each[0])
    detail = f"the reference's time: {slowest.tower}, batch {wording.count(slowest.batch)}"
    return Tile("Slowest tower", f"{value:.2f} ×", detail)


def _checks(report: Document) -> Tile:
    passed = sum(each.status == "passed" for each in report.findings)
    if not report.findings:
        return Tile("Checks", "none", "no gate was run")
    return Tile("Checks passed", f"{passed} of {len(report.findings)}", report.policy.name or "")


def total(report: Document) -> tuple[int | None, int | None]:
    """Bytes of all model files, reference and candidate; None where one of them was not measured."""

    def add(counts: list[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None

    return add([each.reference_bytes for each in report.sizes]), add([each.candidate_bytes for each in report.sizes])


def because(report: Document) -> dict[tuple[str, str], str]:
    """(metric, rule) -> why the policy asks for it, in the order of the findings."""
    return {(each.metric, each.rule): each.because for each in report.findings if each.because}
