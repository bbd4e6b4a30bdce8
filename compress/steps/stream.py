"""Running a tower segment by segment: activations between two blocks lie in files, and one block's weights in memory.

Every segment runs in a child, on what the one before it has left, batch by batch. What is left of a segment is removed
when the one after the next begins, so that two sets of activations are there at a time, and a run that was interrupted
goes on from the last of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.artifact.staging import write_file
from compress.core.errors import UsageError
from compress.core.progress import Progress
from compress.data import child
from compress.data.child import Limits
from compress.models.external_data import APART, save
from compress.models.segments import Segment, segments
from compress.models.tower import Site, Tower
from compress.steps.step import Feeds
from compress.targets.graph.types import element_types


@dataclass
class Stream:
    """A graph cut into segments and a folder with the activations between them; `feeds` makes those at its start."""

    kind: str
    graph: onnx.ModelProto
    cut: tuple[Segment, ...]
    folder: Path
    feeds: Callable[[], Feeds]
    progress: Progress
    _types: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._types = element_types(self.graph)

    def advance(self, to: int, request: Mapping[str, Any] | None = None) -> list[str]:
        """Have the activations before segment `to` in files, and return these: what is lacking is computed.

        `request` is what the child is asked besides at the last segment before that; then it runs in any case.
        """
        at = to - 1 if request is not None else to
        while at > 0 and not self._whole(at):
            at -= 1
        if at == 0 and not self._whole(0):
            self._begin()
        while at < to:
            self._run(at, request if at == to - 1 else None)
            at += 1
        return self._files(to)

    def _run(self, at: int, request: Mapping[str, Any] | None) -> None:
        """Compute what is left of a segment from what was left of the one before."""
        segment, asked = self.cut[at], dict(request or {"values": [], "windows": {}, "observer": None})
        self._forget(at - 1)
        given, made = self._files(at), self._emptied(at + 1)
        files = [str(made / f"{number}.npz") for number in range(len(given))]
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            graph = Path(place) / "graph.onnx"
            save(segment.graph(self.graph, self._types, asked["values"]), graph, APART)
            asked |= {
                "graph": str(graph), "tower": self.kind, "inputs": list(segment.inputs), "feeds": given,
                "kept": list(segment.outputs), "to": files, "out": asked.get("out", place),
            }  # fmt: skip
            what = f"{self.kind} block {segment.layer}" if segment.layer is not None else f"{self.kind}, segment {at}"
            child.run("compress.steps.observer", asked, Limits.of_machine(), self.progress, what)
        write_file(made / "whole", str(len(given)).encode())

    def _begin(self) -> None:
        """The calibration inputs as files."""
        made, count = self._emptied(0), 0
        for batch in self.progress.track(self.feeds(), f"prepare {self.kind} inputs"):
            np.savez(made / f"{count}.npz", **{name: batch[name] for name in self.cut[0].inputs})  # type: ignore[arg-type]
            count += 1
        if not count:
            raise UsageError(f"there is no calibration data for the {self.kind} tower", "data.calibration")
        write_file(made / "whole", str(count).encode())

    def _place(self, at: int) -> Path:
        return self.folder / f"{at}"

    def _whole(self, at: int) -> bool:
        return (self._place(at) / "whole").is_file()

    def _files(self, at: int) -> list[str]:
        count = int((self._place(at) / "whole").read_text())
        return [str(self._place(at) / f"{number}.npz") for number in range(count)]

    def _emptied(self, at: int) -> Path:
        self._forget(at)
        self._place(at).mkdir(parents=True)
        return self._place(at)

    def _forget(self, at: int) -> None:
        """Remove what was left before segment `at`, its mark first."""
        if self._place(at).is_dir():
            (self._place(at) / "whole").unlink(missing_ok=True)
            shutil.rmtree(self._place(at))


class Walk(Mapping[str, Any]):
    """Observers of what feeds the sites of a tower, by the site's name; those of one segment are in memory.

    Asking for a site runs the tower up to its segment: sites are best asked for in the order of the graph.
    """

    def __init__(self, stream: Stream, tower: Tower, sites: Sequence[Site], observer: type[Any], windows: Any) -> None:
        self._stream, self._observer, self._windows = stream, observer, windows
        feeding = {node.name: node.input[0] for node in tower.graph.graph.node}
        self._source = {site.name: feeding[site.node] for site in sites}
        places = {site.name: at for at, segment in enumerate(stream.cut) for site in segment.sites}
        self._segment = {site.name: places[site.name] for site in sites}
        self._at, self._seen = -1, dict[str, Any]()

    def __getitem__(self, site: str) -> Any:
        if self._segment[site] != self._at:
            self._seen = {}  # before the next ones come in
            self._seen = self._watched(self._segment[site])
            self._at = self._segment[site]
        return self._seen[self._source[site]]

    def _watched(self, at: int) -> dict[str, Any]:
        values = sorted({self._source[name] for name, place in self._segment.items() if place == at})
        with tempfile.TemporaryDirectory(dir=self._stream.folder) as out:
            request = {
                "values": values,
                "windows": {name: window for name, window in self._windows.items() if name in values},
                "observer": f"{self._observer.__module__}:{self._observer.__qualname__}",
                "out": out,
            }
            self._stream.advance(at + 1, request)
            return {name: self._read(Path(out) / f"{number}.npz") for number, name in enumerate(values)}

    def _read(self, path: Path) -> Any:
        with np.load(path, allow_pickle=False) as state:
            return self._observer.restored(dict(state))

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)


def stream_of(tower: Tower, folder: Path, feeds: Callable[[str], Feeds], progress: Progress) -> Stream:
    """The stream of a tower's float graph through a folder."""
    place = folder / tower.kind
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob("tmp*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    cut = segments(tower.graph, tower.sites)
    return Stream(tower.kind, tower.graph, cut, place, lambda: feeds(tower.kind), progress)
