"""What checking an artifact comes to: name, digest, policy, findings and verdict, and whether it may be used."""

from __future__ import annotations

from dataclasses import dataclass

from compress.artifact import layout
from compress.artifact.waived import Waiver
from compress.core.errors import GateFailed, Inconclusive


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate found, on all items or on one slice of them."""

    metric: str
    rule: str
    slice: str | None
    status: str
    reason: str
    waiver: Waiver | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Name and digest of the policy that the artifact was gated with."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Report:
    """An artifact whose bytes, gate report and policy agree with each other; its verdict may be any.

    `waivers` is the digest of those that it was gated with, None without.
    """

    name: str
    subject: str
    status: layout.Status
    policy: Policy | None
    findings: tuple[Finding, ...]
    files: int
    size: int
    waivers: str | None = None

    def require_passed(self, where: str = "", allowed: str | None = None) -> None:
        """Raise GateFailed or Inconclusive unless every gate of a policy passed.

        With the digest of `allowed` waivers also what these waive may be used, until they expire.
        """
        if self.status == "ungated":
            raise Inconclusive("never gated: its recipe says `policy: none`", where)
        if self.status == "passed":
            return
        if self.status == "waived":
            self._require_allowed(where, allowed)
            return
        open_ = [finding for finding in self.findings if finding.status == self.status]
        lines = [f"  {finding.metric} {finding.rule} {finding.slice or ''}: {finding.reason}" for finding in open_]
        if self.status == "failed":
            raise GateFailed("\n".join([f"{len(open_)} findings failed", *lines]), where)
        raise Inconclusive("\n".join([f"{len(open_)} findings are inconclusive", *lines]), where)

    def _require_allowed(self, where: str, allowed: str | None) -> None:
        over = [finding for finding in self.findings if finding.waiver and finding.waiver.expired]
        if allowed is not None and allowed == self.waivers and not over:
            return
        many = "1 finding is" if len(self.waived) == 1 else f"{len(self.waived)} findings are"
        what, hint = f"{many} waived, which is not passed", ""
        if over:
            what = "1 waiver has expired" if len(over) == 1 else f"{len(over)} waivers have expired"
        elif allowed is None:
            hint = "--allow-waived with the file of the waivers, or its digest, accepts them until they expire"
        else:
            what = f"waived by {self.waivers}, and only {allowed} is allowed"
        lines = [waiver_line(finding) for finding in over or self.waived]
        raise GateFailed("\n".join([what, *lines]), where, hint)

    @property
    def waived(self) -> tuple[Finding, ...]:
        """What did not pass and is waived."""
        return tuple(finding for finding in self.findings if finding.waiver is not None)


def waiver_line(finding: Finding) -> str:
    """A waived finding in words: what it is, until when it is waived and why."""
    name = " ".join(filter(None, (finding.metric, finding.rule, finding.slice)))
    if finding.waiver is None:
        return f"  {name}: {finding.reason}"
    until, by = finding.waiver.expires, f" by {finding.waiver.by}" if finding.waiver.by else ""
    why = f"{finding.waiver.status}, waived until {until}{by} ({finding.waiver.reason})"
    return plain(f"  {name}: {why}: {finding.reason}")


def plain(text: str) -> str:
    """Text that a terminal shows and does not obey."""
    return "".join(each if each.isprintable() else " " for each in text)
