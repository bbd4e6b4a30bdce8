"""A few methods of our own and a recipe that uses them."""

from __future__ import annotations

from typing import Literal

from compress.core.names import did_you_mean
from compress.recipe.document import Fraction, Number, PositiveInt, Text
from compress.recipe.steps import StepSpec


class RoundSpec(StepSpec):
    """Options of `quantize.round`."""

    block: PositiveInt = 32
    bits: Literal[4, 8] = 4
    search: Literal["mse", "none"] = "mse"


class PruneSpec(StepSpec):
    """Options of `prune.heads`."""

    ratio: Fraction
    damping: Number | None = 0.01
    note: Text = "why"


METHODS: dict[str, type[StepSpec]] = {"quantize.round": RoundSpec, "prune.heads": PruneSpec}


def spec_of(name: str) -> type[StepSpec]:
    if name not in METHODS:
        raise KeyError(did_you_mean(name, METHODS))
    return METHODS[name]


GOOD = """\
version: 1
name: small_clip
model: {source: pocket-clip}
data:
  calibration: {source: scenes, split: calibration, samples: 256}
steps:
  - {use: quantize.round, block: 64, towers: [text], exclude: ["vision:mlp.fc2@-1", projection]}
  - use: prune.heads
    ratio: 1e-1
targets: [onnxruntime-cpu]
policy: clip_release
"""
