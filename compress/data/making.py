"""From planned samples to a batch of tower inputs: decoding, augmentation and the model's own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core import digest
from compress.core.errors import UsageError
from compress.data import runtime
from compress.data.augment import augmented, seed_of
from compress.data.preprocess import Preprocess, last_token, open_preprocess
from compress.data.raw import Opened, Opener, Raw
from compress.data.runtime import TowerFile
from compress.recipe.training import Augment, Use

Array = NDArray[np.generic]
KINDS: Final[Mapping[Use, tuple[str, ...]]] = {
    "images": ("vision",), "captions": ("text",), "pairs": ("vision", "text"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample of a batch, and the key of the view of it that is meant."""

    key: int
    raw: Raw


@dataclass(frozen=True, slots=True)
class Broken:
    """A sample that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Inputs of the towers for n samples.

    `feeds` holds by tower kind the inputs by their names, (m, ...); `rows` (m,) int64 the places in the batch that
    these m are of: all n of them where every sample has an image and a caption. `keys` (n,) int64 name samples and
    views. In the place of a sample that is `broken` stands another one of the batch.
    """

    keys: NDArray[np.int64]
    feeds: Mapping[str, Mapping[str, Array]]
    rows: Mapping[str, NDArray[np.int64]]
    broken: tuple[Broken, ...] = ()


@dataclass(frozen=True, slots=True)
class Making:
    """How batches are made; small, so that worker processes can be told."""

    folder: Path
    augment: Augment
    use: Use
    seed: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """Towers that get inputs."""
        return KINDS[self.use]

    def digest(self) -> str:
        """Changes with the preprocessing files."""
        files = sorted(each for each in self.folder.iterdir() if each.is_file())
        told = runtime.read(self.folder)
        return digest.of_data(
            {
                "files": {each.name: digest.of_file(each) for each in files},
                "how": told.preprocess.model_dump(mode="json"),
            }
        )


class Maker:
    """Makes batches in one process."""

    def __init__(self, making: Making) -> None:
        shipped = runtime.read(making.folder)
        self._making, self._opener = making, Opener()
        self._preprocess: Preprocess = open_preprocess(making.folder, shipped)
        towers = {kind: getattr(shipped.towers, kind) for kind in making.kinds}
        self._towers: dict[str, TowerFile] = {kind: tower for kind, tower in towers.items() if tower is not None}

    def make(self, planned: Sequence[Planned]) -> TrainingBatch:
        """The batch of these samples. Raises UsageError where none of them can be read, or captions are missing."""
        whole, broken = self._whole(planned)
        feeds: dict[str, dict[str, Array]] = {}
        rows: dict[str, NDArray[np.int64]] = {}
        for kind, tower in self._towers.items():
            if kind == "vision":
                have = [at for at, (_, sample) in enumerate(whole) if sample.image is not None]
                images = [self._view(*whole[at]) for at in have]
                feeds[kind] = {tower.input: self._preprocess.images(images)} if images else {}
            else:
                have = [at for at, (_, sample) in enumerate(whole) if sample.texts]
                feeds[kind] = self._texts(tower, [self._caption(*whole[at]) for at in have]) if have else {}
            rows[kind] = np.array(have, np.int64)
        there = {kind for kind in feeds if len(rows[kind])}
        keys = np.array([plan.key for plan, _ in whole], np.int64)
        return TrainingBatch(
            keys, {kind: feeds[kind] for kind in feeds if kind in there}, {kind: rows[kind] for kind in there}, broken
        )

    def _whole(self, planned: Sequence[Planned]) -> tuple[list[tuple[Planned, Opened]], tuple[Broken, ...]]:
        """The samples opened, a broken one replaced by the next whole one; every process keeps batches of one size."""
        images = "vision" in self._towers
        found: list[tuple[Planned, Opened] | None] = []
        broken: list[Broken] = []
        for plan in planned:
            try:
                found.append((plan, self._opener.open(plan.raw if images else _without_file(plan.raw))))
            except UsageError as error:
                broken.append(Broken(plan.raw.name, error.what))
                found.append(None)
        whole = [each for each in found if each is not None]
        if not whole:
            raise UsageError(f"no image of a batch can be read: {broken[0].name}: {broken[0].reason}", "data.training")
        turns = iter(range(len(found)))
        return [each or whole[next(turns) % len(whole)] for each in found], tuple(broken)

    def _view(self, plan: Planned, sample: Opened) -> Image.Image:
        assert sample.image is not None
        return augmented(sample.image, self._making.augment, self._seed(plan))

    def _seed(self, plan: Planned) -> tuple[int, ...]:
        return seed_of(self._making.seed, plan.key)

    def _caption(self, plan: Planned, sample: Opened) -> str:
        """One of a sample's captions, chosen by the seed of its view."""
        texts = sample.texts
        return texts[0] if len(texts) == 1 else texts[int(np.random.default_rng(self._seed(plan)).integers(len(texts)))]

    def _texts(self, tower: TowerFile, texts: list[str]) -> dict[str, Array]:
        ids, mask = self._preprocess.texts(texts)
        feed: dict[str, Array] = {tower.input: ids}
        if tower.mask is not None:
            feed[tower.mask] = mask
        if tower.eos is not None:
            feed[tower.eos] = last_token(mask)
        return feed


def _without_file(raw: Raw) -> Raw:
    return replace(raw, image=None) if isinstance(raw.image, bytes | Path) else raw
