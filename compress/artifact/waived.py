"""The waivers of an artifact: the file it carries, and that each waived finding is as that file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.artifact import layout, strict_json
from compress.core.errors import CompressError, IntegrityError
from compress.recipe import waivers
from compress.recipe.waivers import Waivers


@dataclass(frozen=True, slots=True)
class Waiver:
    """What a finding was before it was waived, why it is, its last day, and who answers for it."""

    status: str
    reason: str
    expires: str
    by: str | None

    @property
    def expired(self) -> bool:
        """Whether the last day is over."""
        return waivers.expired(self.expires)


def recorded(folder: Path, there: bool, stated: Any) -> Waivers | None:
    """The waivers that a gate report states, read from the file of the artifact, which is `there` or not.

    Raises IntegrityError unless both say the same.
    """
    where = str(folder / layout.GATE_REPORT)
    if stated is None:
        if there:
            raise IntegrityError(f"names no waivers, but there is {layout.WAIVERS}", where)
        return None
    strict_json.fields(stated, {"digest": str}, f"{where} waivers", more=True)
    if not there:
        raise IntegrityError("missing", str(folder / layout.WAIVERS))
    try:
        found = waivers.read(folder / layout.WAIVERS)
    except CompressError as error:
        raise IntegrityError(f"malformed waivers: {error}", str(folder / layout.WAIVERS)) from error
    if found.digest != stated["digest"]:
        raise IntegrityError(f"waivers.digest is {stated['digest']!r}, but the file has {found.digest}", where)
    return found


def waiver(finding: dict[str, Any], given: Waivers | None, where: str) -> Waiver | None:
    """What a finding states of its waiver. Raises IntegrityError unless the file says exactly that.

    A finding that passed cannot be waived.
    """
    stated = finding.get("waiver")
    if (stated is not None) != (finding["status"] == "waived"):
        raise IntegrityError("the status is `waived` and there is a waiver, or neither", where)
    if stated is None:
        return None
    strict_json.fields(stated, {"status": str, "reason": str, "expires": str}, f"{where} waiver", more=True)
    if stated["status"] not in ("failed", "inconclusive"):
        raise IntegrityError(f"{stated['status']!r} cannot be waived", where)
    covered = finding["metric"], finding["rule"], finding.get("slice")
    told = stated["reason"], stated["expires"], stated.get("by")
    entries = given.waivers if given is not None else ()
    if told not in [(each.reason, each.expires, each.by) for each in entries if each.covers == covered]:
        raise IntegrityError(f"is waived as {layout.WAIVERS} does not say", where)
    return Waiver(stated["status"], *told)
