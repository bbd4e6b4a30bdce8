"""What waivers do to a verdict: a finding that did not pass becomes `waived`, which is not passed either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.gates.verdict import Finding, Verdict, Waived
from compress.recipe.waivers import Waiver, Waivers

Place = tuple[str, str, str | None]
"""Metric, rule and slice: what a finding goes by."""


def waive(verdict: Verdict, waivers: Waivers | None) -> Verdict:
    """The verdict with its waived findings marked. Pure; what passed is never waived."""
    if waivers is None:
        return verdict
    given = {each.covers: each for each in waivers.waivers}
    return replace(verdict, findings=tuple(_waived(each, given) for each in verdict.findings))


def _waived(finding: Finding, given: dict[Place, Waiver]) -> Finding:
    waiver = given.get((finding.metric, finding.rule, finding.slice))
    if waiver is None or finding.status not in ("failed", "inconclusive"):
        return finding
    told = Waived(finding.status, waiver.reason, waiver.expires, waiver.by)
    return replace(finding, status="waived", waiver=told)


def unused(verdict: Verdict, waivers: Waivers) -> tuple[Waiver, ...]:
    """Waivers without a finding that needs them: it passed, or there is none on this slice."""
    used = {(each.metric, each.rule, each.slice) for each in verdict.findings if each.waiver is not None}
    return tuple(each for each in waivers.waivers if each.covers not in used)


def record(verdict: Verdict, waivers: Waivers | None) -> dict[str, Any] | None:
    """What a gate report says of the waivers that were given: their digest, and those that nothing needed."""
    if waivers is None:
        return None
    left = [each.model_dump(mode="json") for each in unused(verdict, waivers)]
    return {"digest": waivers.digest, "unused": left}
