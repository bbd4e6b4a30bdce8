"""What changes the weights, and its state as tensors by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from compress.steps.distill._options import Training
from compress.steps.distill._soap import Soap
from compress.steps.distill._student import groups


def optimizer_of(student: nn.Module, spec: Training) -> Optimizer:
    """The optimizer that a step asks for, over all weights of the student that are trained."""
    kinds: dict[str, type[AdamW | Soap]] = {"adamw": AdamW, "soap": Soap}
    return kinds[spec.optimizer](groups(student, spec.weight_decay), lr=spec.rate)


def state_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything that the next step depends on, such as `3/exp_avg` of the fourth weight."""
    states = optimizer.state_dict()["state"]
    return {f"{at}/{name}": torch.as_tensor(value) for at, state in states.items() for name, value in state.items()}


def put_state(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_of` gave, into a new optimizer of the same weights."""
    held: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        at, _, name = path.partition("/")
        held.setdefault(int(at), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
