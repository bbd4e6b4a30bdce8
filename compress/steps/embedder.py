"""The child that embeds: it runs variants of one tower, one after another, on every calibration batch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from compress.data import child
from compress.data.child import Channel, Data
from compress.targets.graph.session import open_session, run


def work(request: Data, channel: Channel) -> Data:
    """Run each of `graphs` on all `feeds`; what graph k makes of them is stored as `<k>.npy` in `out`."""
    channel.expect(len(request["graphs"]) * len(request["feeds"]))
    for at, graph in enumerate(request["graphs"]):
        session = open_session(Path(graph))
        named = [value.name for value in session.get_inputs()]
        parts = []
        for path in request["feeds"]:
            with np.load(path, allow_pickle=False) as batch:
                feed = {name: batch[name] for name in named}
            made = np.asarray(run(session, [request["output"]], feed)[0], np.float32)
            parts.append(made.reshape(len(made), -1))
            channel.done(1)
        np.save(Path(request["out"]) / f"{at}.npy", np.concatenate(parts), allow_pickle=False)
    return {}


if __name__ == "__main__":
    sys.exit(child.serve(work))
