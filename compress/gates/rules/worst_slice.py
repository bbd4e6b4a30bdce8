"""Every slice may lose less than a margin on its own: small text counts as much as large text.

All slices must pass, so no correction for their number is due: a bad candidate has to be lucky everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from compress.gates.gate import Margin, Stricter, undecided
from compress.gates.outcomes import Measurement, Outcomes, Unmeasured, paired
from compress.gates.rules._paired import PairedSpec, Part, judge_part
from compress.gates.verdict import Finding
from compress.recipe.fields import Strict, Text

SliceName = Annotated[str, Field(pattern=r"^[^=]+=.+$")]
"""`dimension=slice`, such as "size=6-8"."""


class OwnMargin(Strict):
    """A margin for one slice, with the reason why it differs."""

    margin: Margin
    because: Text


class Spec(PairedSpec):
    """Options of `worst_slice`.

    `dimensions` restricts which slices are judged (default: all that were measured); `slices` names some that must
    be there; `min_items` is the least number of items a slice is decided on; `margins` overrides the margin by slice.
    """

    dimensions: Annotated[Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None, Stricter.MORE] = None
    slices: Annotated[tuple[SliceName, ...], Field(strict=False)] = ()
    min_items: Annotated[Annotated[int, Field(ge=2)] | None, Stricter.HIGHER] = None
    margins: Mapping[SliceName, OwnMargin] = Field(default_factory=dict)

    @property
    def required(self) -> tuple[str, ...]:
        """Slices that must have been measured."""
        return tuple(dict.fromkeys((*self.slices, *self.margins)))

    @model_validator(mode="after")
    def _names_judged_slices_only(self) -> Spec:
        outside = [name for name in self.required if self.dimensions and name.split("=")[0] not in self.dimensions]
        if outside:
            raise ValueError(f"{', '.join(outside)}: not of the dimensions {', '.join(self.dimensions or ())}")
        return self


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """One finding per slice, and one for each dimension or slice that should be there and is not."""
    outcomes = paired(measurement)
    if isinstance(outcomes, Unmeasured):
        return (undecided(spec, outcomes.reason),)
    masks = _masks(outcomes, spec.dimensions)
    measured = {name.split("=")[0] for name in masks}
    missing = [f"{dimension}=" for dimension in spec.dimensions or () if dimension not in measured]
    missing += [name for name in spec.required if name not in masks]
    absent = [undecided(spec, "not measured: no item belongs to it", name) for name in missing]
    return (*absent, *(_judge_slice(spec, outcomes, name, mask) for name, mask in masks.items()))


def _masks(outcomes: Outcomes, dimensions: tuple[str, ...] | None) -> dict[str, NDArray[np.bool_]]:
    """Which items belong to each slice, by `dimension=slice` in the order of the names."""
    masks = {}
    for dimension in sorted(outcomes.slices if dimensions is None else set(dimensions) & set(outcomes.slices)):
        labels = np.asarray(outcomes.slices[dimension])
        masks.update({f"{dimension}={label}": labels == label for label in sorted(set(outcomes.slices[dimension]))})
    return masks


def _judge_slice(spec: Spec, outcomes: Outcomes, name: str, mask: NDArray[np.bool_]) -> Finding:
    count = int(mask.sum())
    if spec.min_items is not None and count < spec.min_items:
        return undecided(spec, f"{count} items; the policy decides on no fewer than {spec.min_items}", name, count)
    own = spec.margins.get(name)
    margin, because = (spec.margin, spec.because) if own is None else (own.margin, own.because)
    return judge_part(spec, outcomes, Part(name, mask, margin, because))
