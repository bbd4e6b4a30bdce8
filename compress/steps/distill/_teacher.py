"""The child that runs the teacher: embeddings and block outputs of a few batches, written as arrays."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from compress.data import child
from compress.data.child import Channel, Data
from compress.steps.distill._chunk import Chunk
from compress.targets.graph.session import open_session, run


def work(request: Data, channel: Channel) -> Data:
    """Run `graph` on every feed and write its `values`, the embedding first, as a chunk in `out`."""
    session, feeds = open_session(Path(request["graph"])), request["feeds"]
    shapes = [_shape(path, request["inputs"][0]) for path in feeds]
    chunk = Chunk.of(Path(request["out"]), request["tower"], shapes)
    channel.expect(len(feeds))
    for path in feeds:
        with np.load(path, allow_pickle=False) as batch:
            made = run(session, request["values"], {name: batch[name] for name in request["inputs"]})
        chunk.add([np.asarray(each, np.float32) for each in made])
        channel.done(1)
    chunk.close()
    return {}


def _shape(path: str, name: str) -> tuple[int, ...]:
    with np.load(path, allow_pickle=False) as batch:
        return tuple(batch[name].shape)


if __name__ == "__main__":
    sys.exit(child.serve(work))
