"""What stands for gates where the float model is larger than memory: both models run block by block beside each other.

Measured on a few calibration items, or on noise where the recipe has no data: how far the stream behind each block, and
the embedding at the end, are from the float model's. It says whether the file computes what it should, and nothing
about tasks: no policy is decided by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.data.items import Items
from compress.models.external_data import referring
from compress.models.tower import Encoder, Tower
from compress.pipeline.calibration import Calibration
from compress.pipeline.options import Options
from compress.steps.step import Feeds
from compress.steps.stream import Stream, stream_of
from compress.targets import onnxruntime_cpu

ITEMS: Final = 2
"""How many inputs are compared: a large model takes minutes for each on a CPU."""

TOKENS: Final = 12


def measure(
    encoder: Encoder, staged: Path, data: Mapping[str, Items], reference: Path, options: Options
) -> dict[str, Any]:
    """By tower: relative errors of the stream behind each block, and cosines of the embeddings."""
    items = data.get("calibration")
    feeds = Calibration(items, reference).feeds() if items else None
    files = onnxruntime_cpu.files_of(encoder, staged)
    made: dict[str, Any] = {"items": ITEMS, "inputs": "calibration" if items else "noise", "towers": {}}
    for kind, tower in encoder.towers.items():
        batch = _few(tower, feeds(kind) if feeds else _noise(tower))
        with tempfile.TemporaryDirectory(dir=options.output / "staging") as place:
            made["towers"][kind] = told = _compared(tower, files[kind], batch, Path(place), options)
        low = min(told["embedding_cosine"])
        options.progress.say(
            f"{kind}, block by block: lowest cosine of {ITEMS} embeddings to the float model {low:.4f}"
        )
    return made


def _compared(tower: Tower, file: Path, batch: Any, place: Path, options: Options) -> dict[str, Any]:
    """The float tower and the written one, a block of each in turn."""
    was = stream_of(tower, place / "float", lambda _: iter([batch]), options.progress)
    now = _written(tower, file, was, place / "written")
    blocks = []
    for at, segment in enumerate(was.cut, 1):
        old, new = (_values(stream.advance(at)[0], segment.outputs) for stream in (was, now))
        error = max((_error(old[name], new[name]) for name in old), default=0.0)
        blocks.append({"layer": segment.layer, "relative_error": error})
    cosines = _cosines(old[tower.output], new[tower.output])
    return {"blocks": blocks, "embedding_cosine": cosines}


def _written(tower: Tower, file: Path, like: Stream, place: Path) -> Stream:
    """The stream of the written file, cut where the float one is: a value between two blocks keeps its name."""
    place.mkdir(parents=True)
    return Stream(tower.kind, referring(file), like.cut, place, like.feeds, like.progress)


def _values(path: str, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in names if held[name].dtype == np.float32}


def _error(old: NDArray[np.float32], new: NDArray[np.float32]) -> float:
    """Norm of the difference over that of the float values; infinite where they are not numbers."""
    made = float(np.linalg.norm(new - old) / (np.linalg.norm(old) or 1.0))
    return made if np.isfinite(made) else float(np.finfo(np.float64).max)


def _cosines(old: NDArray[np.float32], new: NDArray[np.float32]) -> list[float]:
    """Cosine of each pair of embeddings; -1, the worst there is, where one is no number or has no direction."""
    lengths = np.linalg.norm(old, axis=-1) * np.linalg.norm(new, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (old * new).sum(-1) / lengths
    return [float(each) if np.isfinite(each) else -1.0 for each in cosines]


def _few(tower: Tower, feeds: Feeds) -> dict[str, Any]:
    batch = next(feeds)
    return {name: batch[name][:ITEMS] for name in tower.inputs}


def _noise(tower: Tower) -> Feeds:
    """Seeded inputs: normal pixels, or ids of the first tokens of the table."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for value in tower.graph.graph.input:
        sizes = [each.dim_value for each in value.type.tensor_type.shape.dim]
        if len(sizes) == 4:
            made[value.name] = rng.standard_normal((ITEMS, *sizes[1:]), np.float32)
        else:
            ids = rng.integers(1, _rows(tower), (ITEMS, TOKENS))
            made[value.name] = np.ones_like(ids) if value.name in tower.inputs[1:] else ids
    yield made


def _rows(tower: Tower) -> int:
    return max((site.shape[0] for site in tower.sites if site.op == "Gather"), default=2)
