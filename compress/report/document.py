"""The gate report as data: `compress/gate_report.json` of an artifact, read leniently and never trusted.

Only the name, digest, status and findings must be there. Whatever else is missing or null reads as "not measured";
a number that is not finite reads as null; a character that cannot be printed reads as a space, so that no text of an
artifact can steer a terminal, break a table row or end an XML document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from compress.artifact import layout, strict_json
from compress.core import names
from compress.core.errors import IntegrityError, UsageError

Status = Literal["passed", "failed", "inconclusive", "waived"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


Number = Annotated[float | None, AfterValidator(_finite)]
Text = Annotated[str, AfterValidator(_printable)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Span(_Part):
    """A value with its interval, or its minimum and maximum."""

    value: Number = None
    low: Number = None
    high: Number = None


class Times(_Part):
    """Milliseconds, or a ratio of them: smallest, median and largest of the pairs."""

    min: Number = None
    median: Number = None
    max: Number = None


class Model(_Part):
    """What was compressed."""

    source: Text | None = None
    revision: Text | None = None
    parameters: int | None = None
    architecture: Text | None = None
    license: Text | None = None


class Named(_Part):
    """A policy or a recipe: its name and digest."""

    name: Text | None = None
    digest: Text | None = None


class Change(_Part):
    """What a step did to one layer."""

    tower: Text = ""
    site: Text = ""
    role: Text = ""
    treatment: Text = ""
    bytes_before: int | None = None
    bytes_after: int | None = None
    error: Number = None
    removed: Text = ""


class Curve(_Part):
    """What a step watched while it trained: values by the number of optimizer steps made before."""

    name: Text = ""
    steps: tuple[int, ...] = ()
    values: tuple[Number, ...] = ()


class Step(_Part):
    """One step of the recipe as it ran; `table` is what a search tried, the names of its columns first."""

    use: Text = ""
    summary: Text = ""
    rows: tuple[Change, ...] = ()
    table: tuple[tuple[Text, ...], ...] = ()
    curves: tuple[Curve, ...] = ()


class Waiver(_Part):
    """What a waived finding was, why it is waived, its last day, and who answers for it."""

    status: Literal["failed", "inconclusive"] = "failed"
    reason: Text = ""
    expires: Text = ""
    by: Text | None = None


class Unused(_Part):
    """A waiver that no finding needed."""

    metric: Text = ""
    rule: Text = ""
    slice: Text | None = None
    expires: Text = ""


class Waivers(_Part):
    """The waivers that were given, by their digest, and those of no use."""

    digest: Text | None = None
    unused: tuple[Unused, ...] = ()


class Finding(_Part):
    """What one gate decided, on all items or on one slice, and the numbers it decided on."""

    metric: Text
    rule: Text
    slice: Text | None = None
    status: Status
    value: Number = None
    bound: Number = None
    threshold: Number = None
    n: int | None = None
    reason: Text = ""
    because: Text = ""
    needed: int | None = None
    waiver: Waiver | None = None


class Judged(_Part):
    """What a gate found on development data, without what the policy says of it."""

    metric: Text
    rule: Text = ""
    slice: Text | None = None
    status: Text = ""
    value: Number = None
    bound: Number = None
    threshold: Number = None


class Scored(_Part):
    """Reference and candidate on the same items, on all of them or on one slice of a dimension."""

    metric: Text
    dimension: Text | None = None
    slice: Text | None = None
    n: int | None = None
    reference: Span = Span()
    candidate: Span = Span()
    drop: Span | None = None

    @property
    def place(self) -> str | None:
        """The slice as a finding names it: `size=6-8`."""
        return f"{self.dimension}={self.slice}" if self.dimension and self.slice else self.slice


class Damaged(_Part):
    """A slice that is worse for sure: its drop, its own p-value, and the one adjusted for all that were tested."""

    metric: Text
    slice: Text | None = None
    n: int | None = None
    drop: Number = None
    p: Number = None
    adjusted: Number = None


class Damage(_Part):
    """The diagnosis over all slices: Holm's correction at `level` over the `tested` ones."""

    level: Number = None
    tested: int | None = None
    slices: tuple[Damaged, ...] = ()


class Bootstrap(_Part):
    """How intervals were resampled."""

    method: Text | None = None
    resamples: int | None = None
    seed: int | None = None


class FileSize(_Part):
    """Bytes of one model file, before and after, and what the bytes after are spent on."""

    file: Text
    tower: Text = ""
    reference_bytes: int | None = None
    candidate_bytes: int | None = None
    parts: Mapping[Text, int | None] = {}


class Latency(_Part):
    """Paired timing of one tower at one batch size."""

    tower: Text = ""
    batch: int | None = None
    reference_ms: Times = Times()
    candidate_ms: Times = Times()
    ratio: Times = Times()
    pairs: int | None = None


class Environment(_Part):
    """Where it was made and measured."""

    python: Text | None = None
    platform: Text | None = None
    cpu: Text | None = None
    packages: Mapping[Text, Text | None] = {}


class Attempts(_Part):
    """How many different candidates the policy has judged on a split so far, this one included."""

    split: Text
    candidates: int


class Target(_Part):
    """The runtime it was made for. `proof` is `linted-only` where it was measured on another one."""

    name: Text | None = None
    proof: Text | None = None


class Proof(_Part):
    """One tower on one provider of one runtime, None where that was not measured."""

    file: Text = ""
    tower: Text = ""
    runtime: Text = ""
    provider: Text = ""
    loaded: bool | None = None
    ran: bool | None = None
    parity: Number = None
    latency_ms: Number = None
    note: Text = ""


class Rung(_Part):
    """One rung of a rescue, judged on development data. `status` is that of its gates, or why it was not measured."""

    rung: Text
    what: Text = ""
    status: Text = ""
    size_ratio: Number = None
    latency_ratio: Number = None
    reason: Text = ""
    findings: tuple[Judged, ...] = ()


class Sensitive(_Part):
    """What treating one site alone does to its tower's embedding: 1 - cosine, its mean and its 99th percentile."""

    tower: Text = ""
    site: Text = ""
    role: Text = ""
    treatment: Text = ""
    mean: Number = None
    p1: Number = None


class Sensitivity(_Part):
    """Sites with the most damaging first. `samples` by tower; `held_out` where no step had seen them."""

    rows: tuple[Sensitive, ...] = ()
    samples: Mapping[Text, int] = {}
    held_out: bool = True


class Rescue(_Part):
    """The ladder: every rung that was tried, the one that was taken, and why."""

    tried: tuple[Rung, ...] = ()
    taken: Text = ""
    why: Text = ""
    sensitivity: Sensitivity | None = None


class Document(_Part):
    """A whole gate report. `reason` says why there was no policy, where there was none."""

    version: Literal[1]
    name: Text
    digest: Text
    status: Literal["passed", "failed", "inconclusive", "waived", "ungated"]
    exit_code: int | None = None
    created: Text | None = None
    reason: Text | None = None
    model: Model = Model()
    policy: Named = Named()
    recipe: Named = Named()
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...]
    scores: tuple[Scored, ...] = ()
    damage: Damage = Damage()
    bootstrap: Bootstrap = Bootstrap()
    sizes: tuple[FileSize, ...] = ()
    latency: tuple[Latency, ...] = ()
    environment: Environment = Environment()
    attempts: tuple[Attempts, ...] | None = None
    waivers: Waivers | None = None
    target: Target = Target()
    proofs: tuple[Proof, ...] = ()
    rescue: Rescue | None = None

    @model_validator(mode="after")
    def _passed_means_passed(self) -> Document:
        held = all(each.status == "passed" for each in self.findings)
        if self.status == "passed" and not (self.findings and held):
            raise ValueError("the status is passed, but its findings do not say so")
        return self

    def score(self, metric: str, place: str | None) -> Scored | None:
        """The score a finding was decided on, if it is there."""
        return next((each for each in self.scores if (each.metric, each.place) == (metric, place)), None)


def read(artifact: Path) -> Document:
    """The gate report of an artifact folder.

    Raises UsageError where there is no artifact and IntegrityError where its report is not one.
    """
    file = artifact / layout.GATE_REPORT
    if not file.is_file():
        raise UsageError("this is no artifact", where=str(artifact), hint=_hint(artifact))
    data = strict_json.parse(strict_json.read_bytes(file), str(file))
    try:
        return Document.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))
        hint = "written by another version of compress, or changed since: run `compress verify`"
        raise IntegrityError(f"not a gate report: {at}: {first['msg']}", str(file), hint) from None


def _hint(artifact: Path) -> str:
    there = artifact.parent
    near = (
        names.did_you_mean(artifact.name, (each.name for each in there.iterdir() if each.is_dir()))
        if there.is_dir()
        else ""
    )
    looks = f"an artifact is a folder with {layout.GATE_REPORT} in it, such as artifacts/released/<name>"
    return f"{near}; {looks}" if near.startswith("did") and not artifact.exists() else looks
