"""How much every token of the calibration data counts: the squared gradient of the embedding by the stream there.

A fit that treats all tokens alike spends itself on background and padding. What an error in a token does to the
embedding is, to first order, its gradient: rows of a least squares fit weighted by the squared gradient minimize the
error of the embedding (the diagonal of the Gauss-Newton matrix, as Fisher information weighs weights in
arXiv:1801.05787). The gradient is that of random projections of the embedding at unit length, two of them, by the tower
as it was before the step. It is computed block by block, with one block's weights in memory.

The same gradient says what the embedding loses, to first order, where a channel is cut: the Taylor score of a gate
before it (arXiv:1906.10771).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.data import child
from compress.data.child import Limits
from compress.models.external_data import APART, save
from compress.models.segments import segments
from compress.models.tower import Tower
from compress.steps._activations import stored
from compress.steps.step import Context
from compress.targets.graph.types import element_types

GATES: Final = "gates.npz"
"""File of the Taylor scores."""

PROBES: Final = 2
"""Random directions of the embedding; more make weights of tokens steadier, and cost one pass each."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Files by batch, with an array (samples, tokens) by value; none where there are `unknown` operators."""

    files: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def sensitivity(
    tower: Tower, graph: onnx.ModelProto, values: Sequence[str], feeds: Sequence[str], context: Context
) -> Sensitivity:
    """The weight of every token at some values of the graph, on batches in files; 1 on average over tokens that count.

    What was computed before is used again where the context has a `memory`; the files lie there, or beside the batches.
    """
    folder = Path(feeds[0]).parent
    if context.memory is not None:
        folder = context.memory / _digest(graph, feeds)
    told = folder / "sensed.json"
    known = json.loads(told.read_text()) if told.exists() else None
    if known is None or not set(values) <= set(known["values"]):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = sorted({*values, *(known["values"] if known else ())})  # trials without a block ask for fewer
        known = {"values": wanted, "unknown": _sensed(tower, graph, dict.fromkeys(wanted, 0), feeds, folder, context)}
        told.write_text(json.dumps(known))
    if known["unknown"]:
        return Sensitivity((), tuple(known["unknown"]))
    return Sensitivity(tuple(str(folder / f"sensed{at}.npz") for at in range(len(feeds))))


def taylor(tower: Tower, gates: Mapping[str, int], context: Context) -> dict[str, NDArray[np.float64]]:
    """What the embedding would lose, to first order, with each group of channels of some values: arrays (groups,).

    `gates` are the numbers of groups, runs of equal length of a value's last axis. A gate at 1 multiplies a group in
    all tokens of a sample; its score is the squared gradient by it, the sum over tokens of channel times gradient,
    summed over samples and random directions of the embedding. Raises UsageError for operators without a gradient.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        feeds = stored(tower, context, folder)
        if unknown := _sensed(tower, tower.graph, gates, feeds, folder, context):
            hint = "use a score without gradients: residual, fluctuation"
            raise UsageError(f"no gradient of {', '.join(unknown)} is known", "score", hint)
        with np.load(folder / GATES, allow_pickle=False) as found:
            return {name: found[name] for name in gates}


def _sensed(
    tower: Tower, graph: onnx.ModelProto, wanted: Mapping[str, int], feeds: Sequence[str], out: Path, context: Context
) -> list[str]:
    """Let a child write the files; returns the operators that it does not know.

    `wanted` are the values, with 0 where the weights of their tokens are asked for, and else their groups of channels.
    """
    types = element_types(graph)
    with tempfile.TemporaryDirectory(dir=out) as made:
        cut = []
        for at, segment in enumerate(segments(graph, tower.sites)):
            file, model = Path(made) / f"segment{at}.onnx", segment.graph(graph, types)
            save(model, file, APART)
            inside = {name for node in model.graph.node for name in node.output}
            own = {name: groups for name, groups in wanted.items() if name in inside}
            cut.append({
                "graph": str(file), "outputs": segment.outputs, "made": segment.made,
                "values": [name for name, groups in own.items() if not groups],
                "gates": {name: groups for name, groups in own.items() if groups},
            })  # fmt: skip
        request = {
            "tower": tower.kind, "segments": cut, "output": tower.output, "inputs": list(tower.inputs),
            "feeds": list(feeds), "probes": PROBES, "out": str(out), "scratch": made, "seed": context.seed,
        }  # fmt: skip
        what = f"weigh {tower.kind} tokens"
        told = child.run("compress.steps.sensor", request, Limits.of_machine(), context.progress, what)
    unknown: list[str] = told["unknown"]
    return unknown


def _digest(graph: onnx.ModelProto, feeds: Sequence[str]) -> str:
    """Of everything that the weights depend on."""
    found = hashlib.sha256()
    for message in (*graph.graph.node, *graph.graph.initializer):
        found.update(message.SerializeToString(deterministic=True))
    for path in feeds:
        found.update(Path(path).read_bytes())
    return found.hexdigest()
