"""The checkpoint of a model larger than memory: every treated site in a file of its own, sealed when it is done.

`<output>/staging/.<name>.checkpoint/` holds `follows.json`, what everything in it follows from; `steps.json`, the
reports of finished steps; below `<tower>/` the treatments; below `sealed<k>/` the seals of sites of step k: the row of
the report and the digest of the treatment's file. What has no seal, or one that does not fit, is done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.artifact.staging import write_file
from compress.core import digest
from compress.core.errors import IntegrityError
from compress.core.progress import Progress
from compress.data.child import peak_memory
from compress.models.kept import Kept
from compress.models.tower import Encoder
from compress.pipeline import checkpoint
from compress.steps.step import Context, SiteReport, StepReport


@dataclass
class Blocks:
    """The checkpoint folder of one run of a streamed encoder, whose treatments it takes over."""

    folder: Path
    follows: Mapping[str, str | None]
    encoder: Encoder
    progress: Progress
    _step: int = 0
    _pace: _Pace = field(init=False, repr=False)

    def start(self, resume: bool) -> list[StepReport]:
        """Reports of the steps that need not run again; sites of the next that are done are found when it runs.

        Where the checkpoint follows from something else, that is said and everything starts anew.
        """
        reason = self._reason() if resume else ""
        if not resume or reason:
            checkpoint.discard(self.folder)
        if resume:
            self.progress.say(reason or f"resumed: {self._sealed()} weights are done")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / "follows.json", json.dumps(dict(self.follows), indent=1).encode())
        for kind, tower in self.encoder.towers.items():
            tower.treatments = Kept(self.folder / kind)
        self._pace = _Pace(self.encoder, self.progress)
        reports = self._finished()
        self._step = len(reports)
        return reports

    def save(self, reports: list[StepReport]) -> None:
        """Note that one more step is finished."""
        self._step = len(reports)
        write_file(self.folder / "steps.json", json.dumps([asdict(report) for report in reports]).encode())
        self._pace = _Pace(self.encoder, self.progress)

    def context(self, given: Context) -> Context:
        """What a step is given, with this checkpoint to ask."""
        return replace(given, done=self, scratch=self.folder / "activations")

    def row(self, tower: str, site: str) -> SiteReport | None:
        """What the running step did to a site before it was interrupted."""
        kept = self._kept(tower)
        try:
            told = json.loads(self._seal(tower, site).read_bytes())
            row = SiteReport(**told["row"])
            if digest.of_file(kept.path(site)) != told["sha256"]:
                raise ValueError("its digest is another")
            kept.adopt(site)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IntegrityError) as error:
            self.progress.say(f"what was kept of {site} is damaged ({error}); it is done again")
            return None
        self._pace.skip(row)
        return row

    def add(self, row: SiteReport) -> None:
        """Seal a site that the running step has treated."""
        sealed = {"row": asdict(row), "sha256": digest.of_file(self._kept(row.tower).path(row.site))}
        path = self._seal(row.tower, row.site)
        path.parent.mkdir(exist_ok=True)
        write_file(path, json.dumps(sealed).encode())
        self._pace.tell(row)

    def _kept(self, tower: str) -> Kept:
        held = self.encoder.towers[tower].treatments
        assert isinstance(held, Kept)
        return held

    def _seal(self, tower: str, site: str) -> Path:
        return self.folder / f"sealed{self._step}" / f"{tower}-{self._kept(tower).path(site).stem}.json"

    def _sealed(self) -> int:
        return sum(1 for _ in self.folder.glob("sealed*/*.json"))

    def _reason(self) -> str:
        """Why the checkpoint is of no use; '' where it is."""
        try:
            follows = json.loads((self.folder / "follows.json").read_bytes())
            changed = [name for name in self.follows if follows.get(name) != self.follows[name]]
        except FileNotFoundError:
            return "there is no checkpoint to resume; starting with the first block"
        except (OSError, ValueError, AttributeError):
            return "the checkpoint cannot be read; starting with the first block"
        return f"{', '.join(changed)} changed since the checkpoint; starting with the first block" if changed else ""

    def _finished(self) -> list[StepReport]:
        """Reports of the steps that are finished, the files of their treatments taken in."""
        try:
            told: list[dict[str, Any]] = json.loads((self.folder / "steps.json").read_bytes())
            reports = [checkpoint.report_of(each) for each in told]
            for row in (row for report in reports for row in report.rows):
                if not self._sound(row.tower, row.site):
                    raise ValueError(f"what was kept of {row.site} is damaged")
                self._kept(row.tower).adopt(row.site)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, IntegrityError) as error:
            self.progress.say(f"the finished steps cannot be read ({error}); they are done again")
            return []
        return reports

    def _sound(self, tower: str, site: str) -> bool:
        """Whether a treatment's file is one that some step has sealed."""
        path = self._kept(tower).path(site)
        found = digest.of_file(path)
        seals = self.folder.glob(f"sealed*/{tower}-{path.stem}.json")
        return any(json.loads(seal.read_bytes())["sha256"] == found for seal in seals)


class _Pace:
    """Says after each block how many are done, how fast, what is left, and the most memory that was taken."""

    def __init__(self, encoder: Encoder, progress: Progress) -> None:
        self._layer = {(kind, site.name): site.layer for kind, each in encoder.towers.items() for site in each.sites}
        self._total = len({(kind, layer) for (kind, _), layer in self._layer.items() if layer is not None})
        self._progress = progress
        self._met: set[tuple[str, int]] = set()
        self._here = 0
        self._began = time.monotonic()

    def skip(self, row: SiteReport) -> None:
        """Take notice of a site that was treated before."""
        self._enter(row)

    def tell(self, row: SiteReport) -> None:
        """Take notice of a treated site, and speak where it begins another block."""
        if not self._enter(row):
            return
        if self._here:
            rate = self._here / (time.monotonic() - self._began)
            self._progress.say(
                f"{len(self._met) - 1} of {self._total} blocks done, {60 * rate:.1f} a minute, "
                f"{(self._total - len(self._met) + 1) / rate / 60:.1f} minutes left, "
                f"peak memory {peak_memory() / 2**30:.2f} GiB"
            )
        self._here += 1

    def _enter(self, row: SiteReport) -> bool:
        layer = self._layer.get((row.tower, row.site))
        if layer is None or (row.tower, layer) in self._met:
            return False
        self._met.add((row.tower, layer))
        return True
