"""Checkpoints of a training: weights, the optimizer's state and how far it is, in one safetensors file each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.artifact.staging import write_file
from compress.core import digest
from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.steps.distill._optimizer import put_state, state_of

KEPT: Final = 2
"""Checkpoints: the newest may be the one that a killed machine damaged."""


@dataclass
class Position:
    """How far a training is: steps made, where in the data, seconds spent, and what was watched."""

    steps: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    watched: list[tuple[int, float]] = field(default_factory=list)
    best: float | None = None
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class States:
    """The checkpoints of one training. `follows` is everything that its outcome follows from."""

    folder: Path
    follows: Mapping[str, Any]

    def write(self, model: nn.Module, optimizer: Optimizer, best: Mapping[str, Tensor], position: Position) -> None:
        """Keep the state as it is now; at any moment the folder holds a whole one, if it ever held one."""
        held = {f"weight/{name}": value for name, value in model.state_dict().items()}
        held |= {f"optimizer/{name}": value for name, value in state_of(optimizer).items()}
        held |= {f"best/{name}": value for name, value in best.items()}
        tensors = {name: value.detach().to("cpu").contiguous().clone() for name, value in held.items()}
        told = {"follows": digest.of_data(dict(self.follows)), "position": json.dumps(asdict(position))}
        content = save(tensors, {**told, "tensors": _digest(tensors)})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / f"{position.steps:09d}.safetensors", content)
        for old in self._files()[:-KEPT]:
            old.unlink()

    def read(self, progress: Progress) -> tuple[dict[str, Tensor], Position] | None:
        """The newest whole checkpoint; None where there is none. Raises UsageError for one of another training."""
        for path in reversed(self._files()):
            try:
                with safe_open(path, "pt") as opened:
                    told = opened.metadata()
                    tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                position = _position(json.loads(told["position"]))
                whole = told["tensors"] == _digest(tensors)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                progress.say(f"the checkpoint {path.name} is damaged ({error}); going back to the one before")
                continue
            if not whole:
                progress.say(f"the checkpoint {path.name} is damaged; going back to the one before")
                continue
            if told["follows"] != digest.of_data(dict(self.follows)):
                hint = "run without --resume to start again, or put back what was there"
                raise UsageError(
                    "cannot resume: the training changed since its checkpoint was written", str(path), hint
                )
            return tensors, position
        return None

    def newest(self) -> int | None:
        """Steps that the newest checkpoint has; None where there is none."""
        files = self._files()
        return int(files[-1].stem) if files else None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


def restore(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights and the optimizer's state where they were; returns the best weights so far."""
    model.load_state_dict(_below(tensors, "weight/"))
    put_state(optimizer, _below(tensors, "optimizer/"))
    return _below(tensors, "best/")


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return digest.of_data({name: digest.of_bytes(value.numpy().tobytes()) for name, value in sorted(tensors.items())})


def _position(told: dict[str, Any]) -> Position:
    return Position(**{**told, "watched": [(int(at), float(value)) for at, value in told["watched"]]})
