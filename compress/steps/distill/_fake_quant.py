"""Integers that can be trained: what a treated site computes with, made from float weights in every forward pass.

Rounding passes gradients straight through (STE, 1308.3432); what is clipped has none. Scales stay as they are, or learn
by the gradient of LSQ (1902.08153), as logarithms, so that one rate suits scales of any size. Forward values are those
of the treatment, bit for bit where it begins: each weight starts inside of the cell of its integer, so that integers of
methods that look ahead, such as GPTQ, are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from compress.core.errors import UsageError
from compress.models.graph import array, initializers
from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, StaticInt8, Treatment

_EDGE: Final = 0.49
"""How far from its integer a weight may start, in steps: half of one is where it would round to the next."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers a weight (out, in) may take: codes from `low` to `high`, counted from the zero point.

    weight = code * scale, and the scales (out, blocks, 1) are those given, or what `shift` has made of them.
    """

    given: Tensor
    low: Tensor
    high: Tensor
    block: int
    columns: int
    shift: nn.Parameter | None = None

    def scales(self, device: torch.device) -> Tensor:
        """The scales, (out, blocks, 1)."""
        return _shifted(self.given.to(device), self.shift)

    def rounded(self, weight: Tensor) -> Tensor:
        """A weight (out, in) on the grid, with gradients for it and, where they are wanted, for the scales."""
        scales = self.scales(weight.device)
        return self._flat(self._clipped(_rounded(self._blocks(weight) / scales)) * scales)

    def codes(self, weight: Tensor) -> Tensor:
        """The integers of a weight, (out, blocks, block), padding included."""
        return self._clipped(torch.round(self._blocks(weight) / self.scales(weight.device)))

    def started(self, weight: Tensor, codes: Tensor) -> Tensor:
        """The weight moved as little as makes it round to these codes."""
        scales = self.scales(weight.device)
        return self._flat(torch.clamp(self._blocks(weight) / scales, codes - _EDGE, codes + _EDGE) * scales)

    def _clipped(self, codes: Tensor) -> Tensor:
        """Unlike minimum and maximum, `clamp` gives codes at an end their whole gradient."""
        return torch.clamp(codes, self.low.to(codes.device), self.high.to(codes.device))

    def _blocks(self, weight: Tensor) -> Tensor:
        missing = -self.columns % self.block
        padded = nn.functional.pad(weight, (0, missing)) if missing else weight
        return padded.reshape(len(weight), -1, self.block)

    def _flat(self, values: Tensor) -> Tensor:
        return values.reshape(len(values), -1)[:, : self.columns]


def _shifted(scale: Tensor, shift: nn.Parameter | None) -> Tensor:
    return scale if shift is None else scale * torch.exp(shift.to(scale.device)).reshape(scale.shape)


def _rounded(steps: Tensor) -> Tensor:
    return steps + (torch.round(steps) - steps).detach()


@dataclass(frozen=True, slots=True)
class Fake:
    """A treated site in training, which stands before its node as a hook.

    Has the grid of its weight, and where its input is rounded as well, the shift of that scale, if it learns.
    """

    site: Site
    held: BlockWeights | StaticInt8
    grid: Grid
    shift: nn.Parameter | None

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The inputs of the node as the artifact computes with them."""
        made, at = list(inputs), 0 if self.site.op == "Gather" else 1
        made[at] = self.weight(inputs[at])
        if isinstance(self.held, StaticInt8):
            made[0] = fake_input(inputs[0], self.input_scale(inputs[0].device), self.held.zero_point)
        return made

    @property
    def learned(self) -> tuple[nn.Parameter, ...]:
        """Logarithms of how much the scales have changed, in one dimension; none where they stay as they are."""
        return tuple(each for each in (self.grid.shift, self.shift) if each is not None)

    def input_scale(self, device: torch.device) -> Tensor:
        """The scale of a static 8-bit input."""
        assert isinstance(self.held, StaticInt8)
        return _shifted(torch.tensor(self.held.input_scale, dtype=torch.float32, device=device), self.shift)

    def weight(self, weight: Tensor) -> Tensor:
        """The graph's weight as the artifact will hold it, in the graph's shape."""
        return self._back(self.grid.rounded(self._matrix(weight)), weight)

    def start(self, weight: Tensor) -> Tensor:
        """The graph's weight where training begins, in the graph's shape."""
        codes = torch.from_numpy(_signed(self.held)).to(weight.device)
        return self._back(self.grid.started(self._matrix(weight), codes), weight)

    def settled(self, weight: Tensor) -> Treatment:
        """The treatment that holds the trained weight, on the same blocks."""
        codes = self.grid.codes(self._matrix(weight)).cpu().numpy()
        scales = self.grid.scales(torch.device("cpu")).numpy()[..., 0]
        if isinstance(self.held, StaticInt8):
            scale = self.held.input_scale if self.shift is None else float(self.input_scale(torch.device("cpu")))
            zero = self.held.zero_point
            return StaticInt8(codes[:, 0, :].astype(np.int8), scales[:, 0].copy(), scale, zero_point=zero)
        return replace(self.held, codes=(codes + _zeros(self.held)).astype(np.uint8), scales=scales.copy())

    def _matrix(self, weight: Tensor) -> Tensor:
        """(out, in): a table's rows stay rows, a kernel is flattened."""
        return weight.T if self.site.op == "MatMul" else weight.reshape(len(weight), -1)

    def _back(self, matrix: Tensor, like: Tensor) -> Tensor:
        return matrix.T if self.site.op == "MatMul" else matrix.reshape(like.shape)


def fake_input(value: Tensor, scale: Tensor, zero: int = 128) -> Tensor:
    """What an 8-bit input says: rounded, and cut off at -zero and 255 - zero scales, with no gradient beyond them."""
    return torch.clamp(_rounded(value / scale), -zero, 255 - zero) * scale


def fakes(tower: Tower, learn_scales: bool = False) -> dict[str, Fake]:
    """The treated sites of a tower by the names of their nodes.

    Raises UsageError for a treatment in floating point, which has no integers to train.
    """
    made = {}
    for name, held in tower.treatments.items():
        site = tower.site(name)
        if not isinstance(held, BlockWeights | StaticInt8):
            hint = "leave it out of the steps before, or train before it is rounded"
            raise UsageError(f"{type(held).__name__} cannot be trained through", name, hint)
        shift = _shift(1) if learn_scales and isinstance(held, StaticInt8) else None
        made[site.node] = Fake(site, held, _grid(held, learn_scales), shift)
    return made


def start(tower: Tower, found: dict[str, Fake]) -> None:
    """Move the graph's weights of treated sites to where training begins, in place.

    What the tower computes with these fakes is then what it computes with its treatments.
    """
    held = initializers(tower.graph)
    for fake in found.values():
        tensor = held[fake.site.weight]
        with torch.no_grad():
            weight = fake.start(torch.from_numpy(array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight.numpy()), tensor.name))


def settle(tower: Tower, found: dict[str, Fake]) -> None:
    """Attach the treatments that hold the graph's weights as they are now, in place."""
    held = initializers(tower.graph)
    with torch.no_grad():
        for fake in found.values():
            weight = torch.from_numpy(array(held[fake.site.weight]).copy())
            tower.treatments[fake.site.name] = fake.settled(weight)


def _grid(held: BlockWeights | StaticInt8, learn: bool) -> Grid:
    shift = _shift(held.scales.size) if learn else None
    if isinstance(held, StaticInt8):
        limit, columns = torch.tensor(127.0), held.codes.shape[1]
        return Grid(torch.tensor(held.scales[:, None, None]), -limit, limit, columns, columns, shift)
    zeros, top = torch.from_numpy(_zeros(held)), (1 << held.bits) - 1
    return Grid(torch.tensor(held.scales[..., None]), -zeros, top - zeros, held.block, held.columns, shift)


def _shift(count: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(count))


def _zeros(held: BlockWeights) -> NDArray[np.float32]:
    """Zero points, (out, blocks, 1)."""
    if held.zero_points is None:
        return np.full((*held.scales.shape, 1), 1 << (held.bits - 1), np.float32)
    return held.zero_points[..., None].astype(np.float32)


def _signed(held: BlockWeights | StaticInt8) -> NDArray[np.float32]:
    """Codes counted from the zero point, (out, blocks, block)."""
    if isinstance(held, StaticInt8):
        return held.codes[:, None, :].astype(np.float32)
    return held.codes.astype(np.float32) - _zeros(held)
