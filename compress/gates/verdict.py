"""What came out: a finding per declared gate (and slice), and the verdict on the bytes they belong to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Status = Literal["passed", "failed", "inconclusive", "waived"]

EXIT_CODES: Final[dict[Status, int]] = {"passed": 0, "failed": 3, "inconclusive": 4, "waived": 3}


@dataclass(frozen=True, slots=True)
class Waived:
    """What a finding was before it was waived, why it is, its last day (ISO 8601, UTC), and who answers for it."""

    status: Literal["failed", "inconclusive"]
    reason: str
    expires: str
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one gate found, for all items or for one slice of them.

    `value` is what was measured, `bound` the end of its interval that the rule looks at, `threshold` what it is held
    against, `n` how many items there were, `because` the policy's reason for the gate, and `needed` how many items
    would decide an inconclusive one (None where no number would, or none is known). Everything but the status stays
    what it was when a finding is waived; `waiver` then says what it would be without.
    """

    metric: str
    rule: str
    slice: str | None = None
    status: Status
    value: float | None = None
    bound: float | None = None
    threshold: float | None = None
    n: int = 0
    reason: str
    because: str
    needed: int | None = None
    waiver: Waived | None = None

    def to_data(self) -> dict[str, Any]:
        """JSON-like data; a number that is not finite becomes None."""
        return {
            "metric": self.metric,
            "rule": self.rule,
            "slice": self.slice,
            "status": self.status,
            "value": _number(self.value),
            "bound": _number(self.bound),
            "threshold": _number(self.threshold),
            "n": int(self.n),
            "reason": self.reason,
            "because": self.because,
            "needed": None if self.needed is None else int(self.needed),
            "waiver": None if self.waiver is None else asdict(self.waiver),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings of one policy about the bytes with this digest; its status follows from them alone."""

    digest: str
    policy_name: str
    policy_digest: str
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """Any failed: failed. All passed, and there is at least one: passed. All passed or waived: waived.

        Otherwise inconclusive.
        """
        return combined(finding.status for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 passed, 3 failed or waived, 4 inconclusive."""
        return EXIT_CODES[self.status]

    def to_data(self) -> dict[str, Any]:
        """JSON-like data, the same for the same verdict."""
        return {
            "digest": self.digest,
            "policy_name": self.policy_name,
            "policy_digest": self.policy_digest,
            "status": self.status,
            "findings": [finding.to_data() for finding in self.findings],
        }


def combined(statuses: Iterable[Status]) -> Status:
    """The status of several findings together; of none, inconclusive."""
    seen = set(statuses)
    if "failed" in seen:
        return "failed"
    if not seen or seen - {"passed", "waived"}:
        return "inconclusive"
    return "waived" if "waived" in seen else "passed"


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
