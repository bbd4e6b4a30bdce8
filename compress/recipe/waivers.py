"""A file of waivers: findings that somebody answers for although they did not pass, with a reason and a last day.

The gates apply it and `verify` reads it again, so it stands below both.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from compress.core.digest import of_data
from compress.core.errors import UsageError
from compress.recipe import document
from compress.recipe.fields import Strict, Text, Version


def _day(text: str) -> str:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a day such as 2031-12-24, not {text[:40]!r}") from None
    return text


class Waiver(Strict):
    """One finding that is waived: of this gate, on this slice as the finding names it (on all items without one).

    It holds up to the end of the day `expires`, in UTC. `by` says who answers for it.
    """

    metric: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")]
    rule: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    slice: Text | None = None
    reason: Text
    expires: Annotated[str, AfterValidator(_day)]
    by: Text | None = None

    @property
    def covers(self) -> tuple[str, str, str | None]:
        """Metric, rule and slice of the finding."""
        return self.metric, self.rule, self.slice

    def __str__(self) -> str:
        return f"{self.metric} {self.rule}" + (f" [{self.slice}]" if self.slice else "")


class Waivers(Strict):
    """A file of waivers."""

    version: Version
    waivers: tuple[Waiver, ...]

    @field_validator("waivers")
    @classmethod
    def _some_and_once_each(cls, waivers: tuple[Waiver, ...]) -> tuple[Waiver, ...]:
        if not waivers:
            raise ValueError("there is none in it: leave the file away")
        seen: set[tuple[str, str, str | None]] = set()
        for each in waivers:
            if each.covers in seen:
                raise ValueError(f"waives {each} twice")
            seen.add(each.covers)
        return waivers

    def to_data(self) -> dict[str, Any]:
        """JSON-like data of what the file says."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what the file says, not of its layout."""
        return of_data(self.to_data())

    def require_valid(self, where: str, today: date | None = None) -> None:
        """Raise UsageError naming every waiver that has expired."""
        over = [each for each in self.waivers if expired(each.expires, today)]
        if over:
            lines = [f"  {each}: expired on {each.expires} ({each.reason})" for each in over]
            told = "1 waiver has expired" if len(over) == 1 else f"{len(over)} waivers have expired"
            raise UsageError("\n".join([told, *lines]), where, "mend the cause, or have it waived again")


def expired(day: str, today: date | None = None) -> bool:
    """Whether a last day is over, in UTC: the same on every machine."""
    return date.fromisoformat(day) < (today or datetime.now(timezone.utc).date())


def read(file: Path) -> Waivers:
    """Read a file of waivers. Raises UsageError where there is none, DocumentError with every problem of it."""
    return document.decode(document.read(file), Waivers)
