"""Curves sent to a tracker while a step trains: TensorBoard or MLflow, through accelerate's own."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from compress.core.errors import EnvironmentFailure

Tracker = Literal["none", "tensorboard", "mlflow"]
_MODULES: Final[Mapping[Tracker, tuple[str, ...]]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
}
_INSTALLS: Final[Mapping[Tracker, str]] = {"tensorboard": "'compress-encoders[tensorboard]'", "mlflow": "mlflow"}


@dataclass(frozen=True, slots=True)
class Tracking:
    """A run of a tracker; without one, nothing is sent."""

    run: Any = None

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Send values watched after so many optimizer steps; one that is not finite is left out."""
        told = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if self.run is not None and told:
            self.run.log(told, step=step)

    def close(self) -> None:
        """End the run, so that everything is written."""
        if self.run is not None:
            self.run.finish()


def require(tracker: Tracker) -> None:
    """Raise EnvironmentFailure where a tracker's package is not installed."""
    wanted = _MODULES.get(tracker, ())
    if wanted and not any(importlib.util.find_spec(name) for name in wanted):
        hint = f"pip install {_INSTALLS[tracker]}, or set tracker: none"
        raise EnvironmentFailure(f"{' or '.join(wanted)} is not installed", f"tracker: {tracker}", hint)


def opened(tracker: Tracker, name: str, folder: Path) -> Tracking:
    """A run called `name`: TensorBoard files below `folder`, or an MLflow experiment where MLFLOW_TRACKING_URI says.

    Where several processes train, the first one writes. Raises EnvironmentFailure where the package is missing.
    """
    require(tracker)
    if tracker == "none":
        return Tracking()
    from accelerate import tracking

    if tracker == "tensorboard":
        run: Any = tracking.TensorBoardTracker(name, folder)
    else:
        run = tracking.MLflowTracker(experiment_name="compress", run_name=name)
    run.start()
    return Tracking(run)
