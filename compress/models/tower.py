"""An encoder as the rest of the toolkit sees it: towers with a float graph and the sites that hold their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import onnx

from compress.models import reference
from compress.models.treatment import Treatment

if TYPE_CHECKING:
    from compress.models.shards import Shards
    from compress.models.structure import Origin


@dataclass(frozen=True, slots=True)
class Site:
    """One weight that a step may change: a matrix product, a convolution or an embedding table.

    `name` is the module path of the layer (or the node's name for plain ONNX), `node` and `weight` are the names of
    the graph's node and initializer, `layer` is the number of the block it belongs to. `shape` is that of the weight
    in the graph: (in, out) for a matrix product, (out, in, kh, kw) for a convolution, (rows, width) for a table.
    """

    name: str
    role: str
    layer: int | None
    op: str
    node: str
    weight: str
    shape: tuple[int, ...]


@dataclass(slots=True)
class Tower:
    """One encoder tower: its float graph, its sites, and what steps have decided to do to them so far.

    `tokens` names the tensor inside the graph that holds a vector for each patch; None where there is none. `config` is
    the Hugging Face config of a student that took the tower's place, None for the model's own.
    """

    kind: str
    graph: onnx.ModelProto
    sites: tuple[Site, ...]
    inputs: tuple[str, ...]
    output: str
    treatments: MutableMapping[str, Treatment] = field(default_factory=dict)
    tokens: str | None = None
    config: Mapping[str, Any] | None = None

    @property
    def streamed(self) -> bool:
        """Whether its weights lie in files and are read when they are needed."""
        return any(reference.is_reference(tensor) for tensor in self.graph.graph.initializer)

    def site(self, name: str) -> Site:
        """The site of a name."""
        return next(site for site in self.sites if site.name == name)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A multimodal encoder: its towers and everything else an artifact of it needs.

    `files` are processor, tokenizer and config files by name, `preprocess` and `logit_scale` go into runtime.json,
    `export_error` is the largest difference between the framework's embeddings and the float graph's (None when the
    source is ONNX already or streamed). `origin` knows the weights of a Hugging Face model. `shards` are the files that
    the weights of a streamed model stay in.
    """

    source: str
    revision: str | None
    architecture: str
    parameters: int
    towers: Mapping[str, Tower]
    files: Mapping[str, bytes]
    preprocess: Mapping[str, Any]
    logit_scale: float | None
    normalized: bool
    export_error: float | None = None
    license: str | None = None
    origin: Origin | None = None
    shards: Shards | None = None


def copied(encoder: Encoder, kinds: Iterable[str] | None = None) -> Encoder:
    """The encoder with towers of its own, all or those of some kinds: steps change the graph in place."""
    towers = dict(encoder.towers)
    for kind in encoder.towers if kinds is None else kinds:
        tower, graph = towers[kind], onnx.ModelProto()
        graph.CopyFrom(tower.graph)
        towers[kind] = replace(tower, graph=graph, treatments=dict(tower.treatments))
    return replace(encoder, towers=towers)
