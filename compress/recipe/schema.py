"""What a recipe says: model, data, steps, targets and the policy that the result must pass."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic.json_schema import models_json_schema

from compress.core import digest
from compress.recipe.fields import Name, Seed, Strict, Text, Version
from compress.recipe.rescue import Rescue
from compress.recipe.sources import DataSource, ModelSource
from compress.recipe.steps import Step, StepSpec

__all__ = ["Head", "Recipe", "Step", "StepSpec", "json_schema"]

NO_POLICY = "none"
TRAINING = "training"
"""The entry of `data:` that distill steps train on; without one they train on what calibrates."""


class Head(Strict):
    """Everything in a recipe but its steps."""

    version: Version = Field(description="Version of the recipe format.")
    name: Name = Field(description="Name of the recipe and of the artifact it makes.")
    description: Text | None = Field(None, description="What it is for.")
    model: ModelSource = Field(description="The model to compress.")
    data: Mapping[Name, DataSource] = Field(default_factory=dict, description="Named data sets, such as calibration.")
    targets: tuple[Name, ...] = Field(min_length=1, description="Runtimes to export for, such as onnxruntime-cpu.")
    policy: Text = Field(description="Name or path of the policy that must hold, or none with a reason.")
    reason: Text | None = Field(None, description="Why there is no policy.", validate_default=True)
    rescue: Rescue | None = Field(None, description="What a candidate whose gates fail may cost to be saved.")
    seed: Seed = Field(0, description="Makes everything random repeatable.")

    @field_validator("data")
    @classmethod
    def _only_training_is_fed(cls, data: Mapping[str, DataSource]) -> Mapping[str, DataSource]:
        fed = [name for name, each in data.items() if each.feeding is not None and name != TRAINING]
        if fed:
            raise ValueError(f"{fed[0]} has `feeding`, which goes with `{TRAINING}` only")
        return data

    @field_validator("targets")
    @classmethod
    def _once_each(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"names a target twice: {', '.join(targets)}")
        return targets

    @field_validator("reason")
    @classmethod
    def _when_ungated(cls, reason: str | None, info: ValidationInfo) -> str | None:
        policy = info.data.get("policy")
        if policy == NO_POLICY and reason is None:
            raise ValueError("is required with `policy: none`: say why nothing has to hold")
        if policy is not None and policy != NO_POLICY and reason is not None:
            raise ValueError("goes with `policy: none` only")
        return reason

    @field_validator("rescue")
    @classmethod
    def _when_gated(cls, rescue: Rescue | None, info: ValidationInfo) -> Rescue | None:
        if rescue is not None and info.data.get("policy") == NO_POLICY:
            raise ValueError("does not go with `policy: none`: nothing could fail")
        return rescue


class Recipe(Head):
    """A whole recipe, read and checked."""

    steps: tuple[Step, ...]

    @property
    def gated(self) -> bool:
        """Whether a policy decides about the result."""
        return self.policy != NO_POLICY

    def resolved(self) -> dict[str, Any]:
        """JSON-like data with all defaults filled in; reading it again gives an equal recipe."""
        data = self.model_dump(mode="json", exclude={"steps"}, exclude_none=True)
        data["steps"] = [{"use": step.use, **step.spec.model_dump(mode="json")} for step in self.steps]
        return data

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the recipe says, whatever its layout, comments and unwritten defaults."""
        return digest.of_data(self.resolved())


def json_schema(specs: Mapping[str, type[StepSpec]]) -> dict[str, Any]:
    """JSON Schema of a recipe for editors; `specs` are the options of each method by name."""
    chosen: set[type[Strict]] = {Head, *specs.values()}
    ordered = sorted(chosen, key=lambda each: (each.__module__, each.__qualname__))
    refs, shared = models_json_schema([(each, "validation") for each in ordered], ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = shared["$defs"]
    head = definitions.pop(_name(refs[Head, "validation"]))
    steps = [_step(use, definitions[_name(refs[spec, "validation"])]) for use, spec in sorted(specs.items())]
    for spec in set(specs.values()):
        definitions.pop(_name(refs[spec, "validation"]))
    head["properties"]["steps"] = {
        "description": "What is done to the model, in this order.",
        "type": "array",
        "items": {"oneOf": steps},
    }
    head |= {"title": "Recipe", "description": __doc__, "required": [*head["required"], "steps"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **head, "$defs": definitions}


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[-1]


def _step(use: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one method's step: its options and the `use` that chooses it."""
    properties = {"use": {"const": use, "description": "The method."}, **spec["properties"]}
    return {**spec, "title": use, "properties": properties, "required": ["use", *spec.get("required", [])]}
