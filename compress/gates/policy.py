"""A policy: which tasks are measured, which gates must hold, and why. Its own file, so that it can be pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from compress.core import names
from compress.core.digest import of_data
from compress.core.errors import DocumentError
from compress.gates import policy_file
from compress.gates.gate import GateSpec
from compress.recipe import document
from compress.recipe.fields import Name, Strict, Version

RULES: Final = "compress.gates.rules"

FAMILIES: Final = ("size", "latency", "memory", "census", "export")
"""Metrics that are measured on every artifact, without a task."""

TaskName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Count = Annotated[int, Field(ge=2)]


class PolicyTask(Strict):
    """What is measured: a task (by default the one of the same name), on which split, on how many items."""

    split: Literal["release", "development"]
    items_per_slice: Count | None = None
    items: Count | None = None
    task: Name | None = None


def _gate(value: Any, info: ValidationInfo) -> GateSpec:
    """Decode one gate with the options of the rule it names."""
    if isinstance(value, GateSpec):
        return value
    made = _spec(value)
    tasks, family = info.data.get("tasks"), made.metric.split(".")[0]
    if tasks is not None and family not in tasks and family not in FAMILIES:
        hint = names.did_you_mean(family, (*tasks, *FAMILIES))
        raise _refusal(_problem(("metric",), f"no task {family!r} is declared under tasks", hint))
    return made


def _spec(value: Any) -> GateSpec:
    if not isinstance(value, Mapping) or not isinstance(value.get("rule"), str):
        if isinstance(value, Mapping):  # which of the other keys are allowed, only the rule could tell
            value = {key: value[key] for key in GateSpec.model_fields if key in value}
        return GateSpec.model_validate(value)
    try:
        spec: type[GateSpec] = names.load(RULES, value["rule"]).Spec
    except KeyError as error:
        raise _refusal(_problem(("rule",), f"no rule {value['rule']!r}", str(error.args[0]))) from None
    try:
        return spec.model_validate(value)
    except ValidationError as error:
        raise _refusal(*(_told(each, spec) for each in error.errors())) from None


def _told(error: ErrorDetails, spec: type[GateSpec]) -> InitErrorDetails:
    """The same error; an unknown key with the names that this gate's rule knows, which no one further up can tell."""
    if error["type"] == "extra_forbidden":
        here = spec.model_fields if len(error["loc"]) == 1 else ()
        return _problem(error["loc"], "no such key", names.did_you_mean(str(error["loc"][-1]), here))
    return InitErrorDetails(type=error["type"], loc=error["loc"], input=error["input"], ctx=error.get("ctx", {}))


def _problem(loc: tuple[int | str, ...], what: str, hint: str) -> InitErrorDetails:
    kind = PydanticCustomError("unknown_name", "{what}", {"what": f"{what} ({hint})" if hint else what})
    return InitErrorDetails(type=kind, loc=loc, input=None)


def _refusal(*problems: InitErrorDetails) -> ValidationError:
    """Problems of one gate, in the form that keeps their place in the document."""
    return ValidationError.from_exception_data("gate", list(problems))


class Policy(Strict):
    """What must hold before anything is released."""

    version: Version
    name: Name
    description: str = ""
    tasks: Mapping[TaskName, PolicyTask] = Field(default_factory=dict)
    gates: Annotated[tuple[Annotated[SerializeAsAny[GateSpec], PlainValidator(_gate)], ...], Field(strict=False)]

    @field_validator("gates")
    @classmethod
    def _some(cls, gates: tuple[GateSpec, ...]) -> tuple[GateSpec, ...]:
        if not gates:
            raise ValueError("a policy without gates would let everything pass")
        return gates

    @property
    def digest(self) -> str:
        """SHA-256 of what the policy says, not of its layout; a default counts only where it is written."""
        return of_data(self.model_dump(mode="json", exclude_unset=True))


class _Written(Policy):
    """For the names of the keys that a file may have besides; they are gone when a policy is decoded."""

    extends: None = None
    without: None = None


def load_policy(name_or_path: str | Path) -> Policy:
    """Read a policy, from a file or by name from those that ship with the package, with all that it extends.

    Raises UsageError when there is none, DocumentError with every problem of the file and its ancestors.
    """
    lineage = policy_file.read(policy_file.find_policy(name_or_path))
    told = [each for level in lineage.levels for each in document.attempt(level, _Written)[1]]
    if problems := dict.fromkeys((*lineage.problems, *told)):  # what is inherited is wrong at every level
        raise DocumentError(
            lineage.resolved.file, sorted(problems, key=lambda each: (each.file, each.line, each.column))
        )
    return document.decode(lineage.resolved, Policy)
