"""Targets: what an encoder becomes for a runtime. A target is a file, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from compress.core import names
from compress.models.tower import Encoder

Counts = tuple[dict[str, str], dict[str, str]]
"""What was planned and what was found, by kind of weight."""


class Target(Protocol):
    """What a target's module offers.

    How its artifacts are opened when they are measured, and whether that is the runtime they are made for, stands in
    the runtime file that `export` writes: measuring needs to know no target.
    """

    NAME: str

    def ready(self) -> None:
        """Raise EnvironmentFailure where its artifacts could not be measured on this machine."""
        ...

    def export(self, encoder: Encoder, folder: Path) -> dict[str, Path]:
        """Write the encoder as it stands, treated or float; returns the file of each tower.

        Raises UsageError with the site's name where a treatment cannot be written for this runtime, and
        CompressError where what was written breaks the target's own rules.
        """
        ...

    def files_of(self, encoder: Encoder, folder: Path) -> dict[str, Path]:
        """Where the file of each tower is, or will be, in the folder of an artifact."""
        ...

    def counts(self, encoder: Encoder, files: Mapping[str, Path]) -> dict[str, Counts]:
        """By tower: what was planned and what the written file holds."""
        ...


def load(name: str) -> Target:
    """The target that a recipe calls by this name. Raises KeyError with near names when there is none."""
    return cast("Target", names.load(__name__, name.replace("-", "_")))
