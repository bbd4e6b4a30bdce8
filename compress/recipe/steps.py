"""The options that every method has, and a step as a recipe lists it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SerializeAsAny, field_validator

from compress.recipe.fields import Strict
from compress.recipe.selector import SelectorText, Tower


class StepSpec(Strict):
    """What a step works on. A method's `Spec` derives from this and adds its own options."""

    towers: Annotated[tuple[Tower, ...], Field(min_length=1, description="Towers to work on.")] = ("vision", "text")
    include: tuple[SelectorText, ...] = Field(
        (), description="What to work on: [tower:]role[@layer]; empty: the roles the method is made for."
    )
    exclude: tuple[SelectorText, ...] = Field(
        (), description="What to leave as it is: [tower:]role[@layer], such as mlp.fc2 or vision:mlp.fc2@-1."
    )

    @field_validator("towers", "include", "exclude")
    @classmethod
    def _once_each(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(entries)) < len(entries):
            raise ValueError(f"names something twice: {', '.join(entries)}")
        return entries


class Step(Strict):
    """A method by name and its options."""

    use: str
    spec: SerializeAsAny[StepSpec]
