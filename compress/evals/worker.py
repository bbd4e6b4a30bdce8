"""The child that encodes: opens the towers of one folder and runs the data of every task through them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import CompressError, IntegrityError
from compress.data import child, runtime
from compress.data.child import Channel, Data
from compress.data.items import Request
from compress.data.session import Encoder
from compress.data.tokens import NoTokens
from compress.evals import patches
from compress.evals import task as tasks
from compress.evals.ranking import cosines, unit

Encode = Callable[[Sequence[Any]], NDArray[np.float32]]


def work(request: Data, channel: Channel) -> Data:
    """Encode every job of `request` into `<out>/<key>.images.npy` and `.texts.npy`; what went wrong in one, by job."""
    encoder = _encoder(Path(request["folder"]), request["threads"])
    channel.expect(request["total"])
    done = {job["key"]: _job(encoder, job, request, channel) for job in request["jobs"]}
    return {"jobs": done, "logit_scale": encoder.runtime.logit_scale, "peak_memory": child.peak_memory()}


def _encoder(folder: Path, threads: int) -> Encoder:
    """The towers of a folder, on so many threads where the folder itself says nothing."""
    told = runtime.read(folder)
    if threads and not told.session.intra_op_num_threads:
        session = told.session.model_copy(update={"intra_op_num_threads": threads})
        told = told.model_copy(update={"session": session})
    return Encoder(folder, told)


def _job(encoder: Encoder, job: Data, request: Data, channel: Channel) -> Data:
    started = time.perf_counter()
    try:
        data = tasks.read(Path(job["file"])).load(Request.of(job["request"]))
        if data.digest != job["digest"]:
            raise IntegrityError(
                "the data are not those that were loaded before", job["key"], "do they change while this runs?"
            )
        out, batch = Path(request["out"]), request["batch"]
        if data.points is not None:
            grid = patches.save(encoder, data, out / job["key"], batch, channel)
            return {"seconds": time.perf_counter() - started, "batch_cosine": None, "grid": grid}
        alone = []
        for name, items, encode in (("images", data.images, encoder.images), ("texts", data.texts, encoder.texts)):
            made = _batches(encode, items, batch, channel)
            np.save(out / f"{job['key']}.{name}.npy", made, allow_pickle=False)
            if made.shape[1]:
                alone.append(batch_cosine(encode, items[: tasks.ALONE]))
    except Exception as error:  # one task that breaks must not take the others with it; it is told and blocks
        if (isinstance(error, CompressError) and not isinstance(error, NoTokens)) or child.exhausted(error):
            raise
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.perf_counter() - started, "batch_cosine": min(alone, default=None), "grid": 0}


def _batches(encode: Encode, items: Sequence[Any], batch: int, channel: Channel) -> NDArray[np.float32]:
    if not items:
        return np.empty((0, 0), np.float32)
    parts = []
    for at in range(0, len(items), batch):
        part = encode([items[place] for place in range(at, min(at + batch, len(items)))])
        channel.done(len(part))
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def batch_cosine(encode: Encode, items: Sequence[Any]) -> float:
    """The lowest cosine between an item encoded alone and the same item in a batch of all of them."""
    together = encode(list(items))
    alone = np.concatenate([encode([item]) for item in items])
    return float(cosines(unit(alone), unit(together)).min())


if __name__ == "__main__":
    sys.exit(child.serve(work))
