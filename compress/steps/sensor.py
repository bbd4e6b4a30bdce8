"""The child that weighs tokens: forward through a tower's segments, then the embedding's gradient back, one by one.

What lies between two segments is kept in files, batch by batch, and so is the gradient there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data import child
from compress.data.child import Channel, Data
from compress.models.differentiable import DifferentiableTower
from compress.models.operators import OPERATORS
from compress.models.tower import Tower
from compress.steps._sensitivity import GATES
from compress.targets.graph.session import open_session, run

Arrays = dict[str, NDArray[Any]]


def work(request: Data, channel: Channel) -> Data:
    """Write, for every batch, the squared gradient by each of the values, summed over its last axis and scaled.

    Those by gates of groups of channels are summed over samples and written once.
    """
    cut, feeds = request["segments"], request["feeds"]
    graphs = [onnx.load(each["graph"], load_external_data=False) for each in cut]
    unknown = sorted({node.op_type for graph in graphs for node in graph.graph.node} - OPERATORS.keys())
    if unknown:
        return {"unknown": unknown}
    first = min((at for at, each in enumerate(cut) if each["values"] or each["gates"]), default=len(cut))
    gates: dict[str, NDArray[np.float64]] = {}
    channel.expect((2 * len(cut) - first) * len(feeds))
    place, out = Path(request["scratch"]), Path(request["out"])
    for at, segment in enumerate(cut):
        _forward(segment, [_kept(feeds, place, at, number) for number in range(len(feeds))], place / f"{at + 1}")
        channel.done(len(feeds))
    rng = torch.Generator().manual_seed(request["seed"])
    for number in range(len(feeds)):
        with np.load(_kept(feeds, place, len(cut), number), allow_pickle=False) as last:
            begun = _of_direction(torch.from_numpy(last[request["output"]]), request["probes"], rng)
        _save(place / f"back{number}.npz", {request["output"]: begun.numpy()})
    for at in reversed(range(first, len(cut))):
        module = _module(request["tower"], cut[at])
        for number in range(len(feeds)):
            given = Path(_kept(feeds, place, at, number))
            found = _backward(module, cut[at], given, place / f"back{number}.npz", out, number)
            for name, each in found.items():
                gates[name] = gates.get(name, 0.0) + each
            channel.done(1)
    _scale(out, len(feeds))
    if gates:
        _save(out / GATES, gates)
    return {"unknown": []}


def _kept(feeds: Sequence[str], place: Path, at: int, number: int) -> str:
    """What a segment starts from."""
    return feeds[number] if at == 0 else str(place / f"{at}.{number}.npz")


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)


def _forward(segment: Mapping[str, Any], given: Sequence[str], made: Path) -> None:
    session = open_session(Path(segment["graph"]))
    for number, path in enumerate(given):
        with np.load(path, allow_pickle=False) as batch:
            feed: Arrays = dict(batch)
        named = {value.name: feed[value.name] for value in session.get_inputs()}
        found = dict(zip(segment["made"], run(session, segment["made"], named), strict=True))
        kept = {name: found.get(name, feed.get(name)) for name in segment["outputs"]}
        _save(Path(f"{made}.{number}.npz"), kept)


def _module(kind: str, segment: Mapping[str, Any]) -> DifferentiableTower:
    graph = onnx.load(segment["graph"])
    inputs = tuple(value.name for value in graph.graph.input)
    *others, last = segment["made"]
    module = DifferentiableTower(Tower(kind, graph, (), inputs, last), [*others, *segment["values"], *segment["gates"]])
    floats = any(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in graph.graph.input)
    return module.requires_grad_(not floats)  # behind token ids alone, a gradient has to begin at a weight


def _of_direction(embedding: Tensor, probes: int, rng: torch.Generator) -> Tensor:
    """Gradients (probes, *embedding) of random projections of the embedding at unit length, by the embedding."""
    embedding.requires_grad_(True)
    flat = torch.nn.functional.normalize(embedding.flatten(1), dim=1)
    asked = torch.randn((probes, *flat.shape), generator=rng)
    found = [torch.autograd.grad((flat * each).sum(), embedding, retain_graph=True)[0] for each in asked]
    return torch.stack(found)


def _backward(
    module: DifferentiableTower, segment: Mapping[str, Any], given: Path, back: Path, out: Path, number: int
) -> dict[str, NDArray[np.float64]]:
    """Put the gradient by what a segment starts from in place of that by what it makes; weigh its values on the way.

    Returns the squared gradients (groups,) by its gates, summed over samples and directions.
    """
    with np.load(given, allow_pickle=False) as batch, np.load(back, allow_pickle=False) as after:
        feed = {name: torch.from_numpy(batch[name]) for name in batch.files}
        known = {name: torch.from_numpy(after[name]) for name in after.files}
    floats = [name for name in module.inputs if feed[name].is_floating_point()]
    for name in floats:
        feed[name].requires_grad_(True)
    found = module(feed)
    ends = [name for name in segment["made"] if name in known and found[name].requires_grad]
    passed = {name: each for name, each in known.items() if name not in segment["made"]}
    inside = {name: found[name] for name in (*segment["values"], *segment["gates"])}
    sums = {name: torch.zeros_like(found[name], requires_grad=False) for name in segment["values"]}
    gates = {name: np.zeros(groups) for name, groups in segment["gates"].items()}
    wanted = {name: feed[name] for name in floats} | {name: each for name, each in inside.items() if each.requires_grad}
    made: dict[str, list[Tensor]] = {name: [] for name in floats}
    probes = next(iter(known.values())).shape[0]
    for probe in range(probes if ends and wanted else 0):
        given_ = [known[name][probe] for name in ends]
        got = torch.autograd.grad(
            [found[name] for name in ends], list(wanted.values()), given_, retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(wanted, got, strict=True):
            if name in sums and gradient is not None:
                sums[name] += gradient.square()
            if name in gates and gradient is not None:
                gates[name] += _by_gate(inside[name].detach() * gradient, len(gates[name]))
            if name in made:
                made[name].append(torch.zeros_like(feed[name]) if gradient is None else gradient)
    for name, several in made.items():
        if several:
            passed[name] = torch.stack(several).detach() + passed.get(name, torch.zeros(()))
    _save(back, {name: each.detach().numpy() for name, each in passed.items()})
    file, have = out / f"sensed{number}.npz", dict[str, NDArray[Any]]()
    if file.exists():
        with np.load(file, allow_pickle=False) as before:
            have = dict(before)
    new = {name: sums[name].sum(-1).numpy() for name in segment["values"]}
    _save(file, have | new)
    return gates


def _by_gate(products: Tensor, groups: int) -> NDArray[np.float64]:
    """Squared sums of products (batch, ..., d) over a sample's tokens and a group's channels, summed over samples."""
    apart = products.reshape(len(products), -1, groups, products.shape[-1] // groups)
    squares: NDArray[np.float64] = apart.sum((1, 3)).double().square().sum(0).numpy()
    return squares


def _scale(out: Path, count: int) -> None:
    """Let the weights of each sample be 1 on average: samples count alike, and only their tokens differ.

    Those of a sample without a finite gradient, as of a square root at 0, are alike.
    """
    for number in range(count):
        file = out / f"sensed{number}.npz"
        with np.load(file, allow_pickle=False) as found:
            weights = dict(found)
        for name, each in weights.items():
            flat = each.reshape(len(each), -1).astype(np.float64)
            flat = np.where(np.isfinite(flat).all(1, keepdims=True), flat, 1.0)
            flat /= np.maximum(flat.mean(1, keepdims=True), np.finfo(np.float64).tiny)
            weights[name] = flat.reshape(each.shape).astype(np.float32)
        _save(file, weights)


if __name__ == "__main__":
    sys.exit(child.serve(work))
