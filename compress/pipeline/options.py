"""What the command line adds to a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compress.artifact.signing import Signing
from compress.core.progress import Progress, Silent
from compress.recipe.waivers import Waivers


@dataclass(frozen=True, slots=True)
class Options:
    """Where artifacts go, where data are looked for, and how a run behaves.

    A `follower` is a process that `accelerate launch` started beside the first one: it trains along and writes nothing.
    """

    output: Path = Path("artifacts")
    data_roots: tuple[Path, ...] = (Path(),)
    offline: bool = False
    replace: bool = False
    resume: bool = False
    signing: Signing | None = None
    waivers: Waivers | None = None
    progress: Progress = field(default_factory=Silent)
    follower: bool = False

    @property
    def cache(self) -> Path:
        """What may be deleted at any time: float references and their embeddings."""
        return self.output / "cache"
