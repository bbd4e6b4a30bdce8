"""`distill.student`: another, smaller tower in the place of the model's own, for the steps behind it to train.

Its config is the model's or a source's, smaller by a listed size or key by key. Weights of the same shape are
inherited, blocks evenly spaced (TinyCLIP, 2309.12314), the others drawn from the recipe's seed. A map into the
teacher's space is folded into the output projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from compress.core.errors import UsageError
from compress.models.tower import Encoder
from compress.recipe.fields import Text
from compress.recipe.sources import Revision, place
from compress.recipe.steps import StepSpec
from compress.steps.step import Context, StepReport

if TYPE_CHECKING:
    from compress.steps.distill._replacing import Replacement

USE = "distill.student"
EXAMPLE = {"towers": ["text"], "size": "half", "map": "linear"}

Value = bool | int | float | str | tuple[int, ...]


class Spec(StepSpec):
    """Options of `distill.student`; at least one of `size`, `source` and `config`."""

    size: Literal["half", "quarter", "small", "tiny"] | None = Field(
        None, description="half, quarter: that share of the layers; small, tiny: all layers, half or a quarter as wide"
    )
    source: Text | None = Field(
        None,
        description="folder or hub id of a smaller model that it starts from, or a folder with a config.json alone",
    )
    revision: Revision | None = Field(None, description="commit or tag of a hub id")
    config: dict[str, Value] = Field(
        {}, description="keys of its Hugging Face config; `model_type` makes it one of another architecture",
        validate_default=True,
    )  # fmt: skip
    start: Literal["inherited", "random"] = Field(
        "inherited", description="inherited: weights of the model or the source where shapes agree; random: none"
    )
    map: Literal["none", "procrustes", "linear"] | None = Field(
        None, description="into the teacher's space; not given: linear where a source's embeddings have another width"
    )
    pooling: Literal["mean", "first"] | None = Field(
        None, description="how tokens become one vector in a tower of another architecture; not given: mean, mostly"
    )

    @field_validator("revision")
    @classmethod
    def _of_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source")
        if revision is not None and (source is None or place(source) != "hub"):
            raise ValueError("only a hub id has a revision")
        return revision

    @field_validator("config")
    @classmethod
    def _something(cls, config: dict[str, Value], info: ValidationInfo) -> dict[str, Value]:
        if not config and info.data.get("size", "") is None and info.data.get("source", "") is None:
            raise ValueError("say what the student is: size, source or config")
        if "model_type" in config and info.data.get("source") is not None:
            raise ValueError("model_type is that of the source")
        return config


def apply(encoder: Encoder, spec: Spec, context: Context) -> StepReport:
    """Put students in the places of the chosen towers, in place.

    Raises UsageError for a config that cannot be, one larger than the tower that it replaces, or one that takes other
    images or tokens than the model's preprocessing makes.
    """
    from compress.steps.distill import _replacing as replacing  # here, because reading a recipe must not load torch

    if spec.include or spec.exclude:
        raise UsageError("a student takes the place of whole towers", "include/exclude", "choose them by `towers`")
    kinds = [kind for kind in spec.towers if kind in encoder.towers]
    if not kinds or ("towers" in spec.model_fields_set and len(kinds) < len(spec.towers)):
        lacking = next(kind for kind in spec.towers if kind not in kinds)
        raise UsageError(f"the model has no {lacking} tower", "towers", f"it has {', '.join(encoder.towers)}")
    made: list[Replacement] = [replacing.replacement(encoder, kind, spec, context) for kind in kinds]
    rows = tuple(row for each in made for row in each.rows)
    for kind, each in zip(kinds, made, strict=True):
        each.put(encoder.towers[kind])
    return StepReport(USE, "; ".join(each.told for each in made) + replacing.lost(encoder), rows)
