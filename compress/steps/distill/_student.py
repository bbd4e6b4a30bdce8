"""The towers under training as one module, and what of them is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from compress.models.differentiable import DifferentiableTower, write_back
from compress.models.junctions import bias_of
from compress.models.tower import Encoder, Site, Tower

Values = dict[str, dict[str, Tensor]]


class Student(nn.Module):
    """Towers by kind. Block outputs that are narrower than the teacher's pass through a matrix of their own.

    `widths` gives for a kind and the student's value the widths of both; these matrices are thrown away in the end.
    """

    def __init__(
        self, towers: Mapping[str, DifferentiableTower], widths: Mapping[tuple[str, str], tuple[int, int]]
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self._named = [key for key, (own, other) in widths.items() if own != other]
        self.adapters = nn.ModuleList(nn.Linear(*widths[key]) for key in self._named)

    def forward(self, feeds: Mapping[str, Mapping[str, Tensor]]) -> Values:
        """Embeddings and block outputs of every tower that is fed, by kind and name."""
        made: Values = {kind: self.towers[kind](feed) for kind, feed in feeds.items()}
        for (kind, name), adapter in zip(self._named, self.adapters, strict=True):
            if kind in made:
                made[kind][name] = adapter(made[kind][name])
        return made


def put_back(encoder: Encoder, student: nn.Module) -> None:
    """Put the trained weights into the encoder's graphs, in place."""
    for kind, module in student.towers.items():  # type: ignore[union-attr, operator]
        assert isinstance(module, DifferentiableTower)
        write_back(encoder.towers[kind], module)


def restrict(tower: Tower, module: DifferentiableTower, sites: Iterable[Site]) -> None:
    """Train the weights of some sites and their biases alone."""
    wanted = set()
    for site in sites:
        wanted.add(site.weight)
        biased = None if site.op != "MatMul" else bias_of(tower, site)
        if biased is not None:
            wanted.add(biased[0].input[biased[1]])
    for name, weight in module.weights().items():
        weight.requires_grad_(name in wanted)


def redraw(module: DifferentiableTower) -> None:
    """Draw the trainable weights anew: matrices with the spread of their inputs, scales of norms 1, biases 0.

    A vector is taken for the scale of a norm where its mean is nearer to 1 than to 0.
    """
    for weight in module.weights().values():
        if not weight.requires_grad:
            continue
        if weight.ndim > 1:
            inputs = weight[0].numel() if weight.ndim > 2 else len(weight)  # (out, in, kh, kw) or (in, out)
            nn.init.normal_(weight, std=inputs**-0.5)
        else:
            nn.init.constant_(weight, 1.0 if float(weight.detach().mean()) > 0.5 else 0.0)


def groups(student: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights for the optimizer: matrices decay, vectors (biases, norms) do not."""
    weights = [each for each in student.parameters() if each.requires_grad]
    return [
        {"params": [each for each in weights if each.ndim > 1], "weight_decay": decay},
        {"params": [each for each in weights if each.ndim <= 1], "weight_decay": 0.0},
    ]
