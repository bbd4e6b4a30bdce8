"""SOAP: Adam in the eigenbases of a weight's gradients (2409.11321).

Adam scales each number of a weight by how large its gradients are, which helps where axes happen to be the directions
that differ. SOAP turns a matrix so that they are: by the eigenvectors of the mean of G G^T and of G^T G, which a
round of power iteration follows every few steps. Bases begin at the axes and follow gradients without a jump, so that
processes that see nearly the same gradients make nearly the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

_WIDEST: Final = 2048
"""Rows or columns that get a basis at most; it takes two square matrices of them, and a QR decomposition each time."""

_TURNS: Final = 10
"""Steps between two looks at the bases, after as many that look each time."""

_BETAS: Final = (0.95, 0.95)
"""Of gradients and of their squares, for matrices; the second for G G^T and G^T G as well."""

_BETAS_OF_VECTORS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8

_KEPT: Final = 1e-3
"""Of the mean eigenvalue: how much of a direction's own is added to what power iteration makes of it."""

_SIDES: Final = ("left", "right")


class Soap(Optimizer):
    """Adam in eigenbases for matrices, kernels as (out, all inputs); plain Adam for vectors. Weight decay is decoupled.

    `params` are groups with their `weight_decay`. Bases begin at the axes.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every weight that has a gradient, by it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                state["step"] = state.get("step", torch.tensor(0.0)) + 1
                change = (_of_matrix if weight.ndim > 1 else _of_vector)(state, weight.grad)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(change.reshape(weight.shape), alpha=-group["lr"])
        return loss


def _of_vector(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    return _adam(state, gradient, _BETAS_OF_VECTORS)


def _of_matrix(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """The change of a matrix (out, in); means of gradients and of their squares are kept in the bases."""
    gradient = gradient.reshape(len(gradient), -1)
    steps = float(state["step"])
    if steps == 1:
        for side, length in zip(_SIDES, gradient.shape, strict=True):
            if length <= _WIDEST:
                state[side] = gradient.new_zeros(length, length)
                state[f"{side}_basis"] = torch.eye(length, dtype=gradient.dtype, device=gradient.device)
    change = _turned_back(state, _adam(state, _turned(state, gradient), _BETAS))
    for side, each in zip(_SIDES, (gradient, gradient.T), strict=True):
        if side in state:
            state[side].lerp_(each @ each.T, 1 - _BETAS[1])
    if steps <= _TURNS or steps % _TURNS == 0:
        mean = _turned_back(state, state["exp_avg"])
        for side in _SIDES:
            if side in state:
                state[f"{side}_basis"] = _followed(state[side], state[f"{side}_basis"])
        state["exp_avg"] = _turned(state, mean)
    return change


def _adam(state: dict[str, Tensor], gradient: Tensor, betas: tuple[float, float]) -> Tensor:
    """The mean of gradients over the root of the mean of squares, without the bias of having begun at 0."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    first, second = betas
    state["exp_avg"].lerp_(gradient, 1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    mean, square = (
        state[name] / (1 - math.pow(beta, float(state["step"])))
        for name, beta in zip(("exp_avg", "exp_avg_sq"), betas, strict=True)
    )
    return mean / square.sqrt_().add_(_EPSILON)


def _turned(state: dict[str, Tensor], value: Tensor) -> Tensor:
    """A matrix in the bases of its sides."""
    if "left_basis" in state:
        value = state["left_basis"].T @ value
    return value @ state["right_basis"] if "right_basis" in state else value


def _turned_back(state: dict[str, Tensor], value: Tensor) -> Tensor:
    if "left_basis" in state:
        value = state["left_basis"] @ value
    return value @ state["right_basis"].T if "right_basis" in state else value


def _followed(mean: Tensor, basis: Tensor) -> Tensor:
    """Nearer to the eigenvectors, by one round of power iteration.

    Where there were no gradients yet, the basis stays what it is: its directions would be those of rounding, which
    differ from one process to two.
    """
    size = mean.diagonal().mean()
    return torch.linalg.qr(mean @ basis + _KEPT * size * basis)[0] if size > 0 else basis
