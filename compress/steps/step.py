"""What a step is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core.progress import Progress, Silent

if TYPE_CHECKING:
    from compress.data.training import TrainingSet
    from compress.models.tower import Encoder

Feeds = Iterator[Mapping[str, NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What a step did to one site: treatment in words, weight bytes before and after, and what it lost.

    What depends on the calibration data stands in the treatment behind a semicolon. `error` is the relative error of
    the weight where it was rounded; where channels were removed, that of what the block adds to the stream, on samples
    that the fit has not seen. `removed` names their places, such as 0-3, 7.
    """

    tower: str
    site: str
    role: str
    treatment: str
    bytes_before: int
    bytes_after: int
    error: float
    removed: str = ""


class Done(Protocol):
    """What is done already of the step that runs: models larger than memory go on in the middle of a step."""

    def row(self, tower: str, site: str) -> SiteReport | None:
        """What was done to a site before the run was interrupted; None where it is yet to be treated."""
        ...

    def add(self, row: SiteReport) -> None:
        """Note that a site is treated."""
        ...


class Nothing:
    """Nothing is done, and nothing is noted."""

    def row(self, tower: str, site: str) -> SiteReport | None:  # noqa: ARG002
        """No site is treated."""
        return None

    def add(self, row: SiteReport) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use besides the towers: preprocessed calibration batches by tower kind, progress, a seed.

    `training` are the data that a distill step trains on; None where the recipe names none. `teacher` is the encoder
    before any step; only a recipe with a distill step has one. Below `cache` a step may keep what can be made again,
    below `work` what it has done so far, and goes on from that where `resume` is set.

    For steps that search: `loss` of an encoder is what it loses of what the policy protects, on development data, 0
    for the reference and less is better; `latency` gives the reference's and its own seconds of one item, by tower,
    measured in turn on the target. None where nobody can tell.

    `pairs` are, for each calibration image, the places of its captions among the texts of `feeds`; `reference` is the
    folder of the float towers that everything is measured against.

    `offline`: what a step fetches comes from the cache of the hub or a folder.

    `whole` are towers' graphs before a step that is made of others began: what their products should still add up to.

    `done` is asked before a site is treated and told after it. `scratch` is a folder for what is larger than memory and
    may be there again after an interruption; None: a temporary one. In `memory` a search keeps what each of its trials
    would compute again.
    """

    feeds: Callable[[str], Feeds] | None = None
    progress: Progress = field(default_factory=Silent)
    seed: int = 0
    training: TrainingSet | None = None
    teacher: Encoder | None = None
    cache: Path | None = None
    work: Path | None = None
    resume: bool = False
    track: Callable[[int, Mapping[str, float]], None] | None = None
    loss: Callable[[Encoder], float] | None = None
    latency: Callable[[Encoder], Mapping[str, tuple[float, float]]] | None = None
    pairs: Callable[[], tuple[tuple[int, ...], ...]] | None = None
    reference: Path | None = None
    offline: bool = False
    done: Done = field(default_factory=Nothing)
    scratch: Path | None = None
    memory: Path | None = None
    whole: Mapping[str, onnx.ModelProto] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form:
    """How a step will hold a matrix product, known from its options alone: `block` of 0 is a scale for each output."""

    bits: int
    block: int = 0
    zero_points: bool = False
    calibrates: bool = False
    compute: str = "float"


@dataclass(frozen=True, slots=True)
class Curve:
    """What a step watched while it trained: values by the number of optimizer steps made before."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did. `table` is what a search tried, the names of its columns first.

    `logit_scale` is the encoder's new one, None where it stays.
    """

    use: str
    summary: str
    rows: tuple[SiteReport, ...]
    table: tuple[tuple[str, ...], ...] = ()
    curves: tuple[Curve, ...] = ()
    logit_scale: float | None = None


def scaled(encoder: Encoder, reports: Sequence[StepReport]) -> Encoder:
    """The encoder with the logit scale that the last step to change it found."""
    found = [report.logit_scale for report in reports if report.logit_scale is not None]
    return replace(encoder, logit_scale=found[-1]) if found else encoder
