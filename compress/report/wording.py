"""Numbers as people read them. Rounding happens here, for the eye only; nothing is compared after it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from compress.report.document import Scored, Span

NOTHING: Final = "–"
NOT_MEASURED: Final = "not measured"
SIGNS: Final = {"at_least": "≥", "at_most": "≤", "census": "≤", "non_inferior": "<", "parity": "≥", "worst_slice": "<"}
"""Gate rule -> how the number that is compared has to stand to its limit."""

PROOFS: Final = {
    "linted-only": "its files keep the rules of that target and were measured as ONNX Runtime computes them on a CPU, "
    "node by node; no engine was built."
}
"""What an artifact that was not measured on its own runtime leaves open."""

Style = Callable[[float | None, int], str]
"""Writes a number with so many decimals."""


def number(value: float | None, digits: int = 4) -> str:
    """A plain number: whole, with few decimals where it is large, in powers of ten where they would show only zeros."""
    if value is None:
        return NOTHING
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return _fixed(value, max(digits - 2, 0) if abs(value) >= 10 else digits)


def answer(value: bool | None) -> str:
    """Whether something was seen to be so."""
    return NOT_MEASURED if value is None else ("yes" if value else "no")


def share(value: float | None, digits: int = 1) -> str:
    """A proportion: `71.3 %`."""
    return NOTHING if value is None else f"{_fixed(100 * value, digits)} %"


def points(value: float | None, digits: int = 2) -> str:
    """A difference of proportions in percentage points: `1.20 pt`."""
    return NOTHING if value is None else f"{_fixed(100 * value, digits)} pt"


def style(scored: Scored | None) -> Style:
    """How the values of a score are written: what has a drop is a share, anything else a plain number."""
    return share if scored and scored.drop else number


def apart(value: float | None, limit: float | None, write: Style, digits: int) -> tuple[str, str]:
    """A measured number and its limit, with as many decimals as it takes to see on which side it stands."""
    pair = write(value, digits), write(limit, digits)
    if value is None or limit is None or value == limit:
        return pair
    while pair[0] == pair[1] and digits < 20:
        digits += 1
        pair = write(value, digits), write(limit, digits)
    return pair


def span(measured: Span | None, write: Style, digits: int) -> str:
    """`71.3 % (69.0 to 73.6)`, without the interval where there is none."""
    if measured is None or measured.value is None:
        return NOT_MEASURED
    ends = interval(measured, write, digits)
    return f"{write(measured.value, digits)} ({ends})" if ends else write(measured.value, digits)


def interval(measured: Span, write: Style, digits: int) -> str:
    """`69.0 to 73.6`, or nothing."""
    if measured.low is None or measured.high is None:
        return ""
    low, high = (write(end, digits).split(" ")[0] for end in (measured.low, measured.high))
    return f"{low} to {high}"


def probability(value: float | None) -> str:
    """`0.013`, or `1e-9` where that is shorter than its zeros."""
    if value is None:
        return NOTHING
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def count(value: int | None) -> str:
    """`1,500`."""
    return NOTHING if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Bytes in the unit (of 1000) that leaves one to three digits before the point."""
    if value is None:
        return NOT_MEASURED
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 2)):
        if abs(value) < 1000:
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def ratio(after: float | None, before: float | None) -> float | None:
    """`after / before` where both are known."""
    return after / before if after is not None and before else None


def order(name: str) -> tuple[bool, tuple[str | float, ...]]:
    """A sort key that puts 6-8 before 9-12 and 'none' last."""
    pieces = re.split(r"([0-9]+(?:\.[0-9]+)?)", name)
    return name.endswith("none"), tuple(float(piece) if at % 2 else piece for at, piece in enumerate(pieces))


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0 takes the sign off a zero
