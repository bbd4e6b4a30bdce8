"""How well fingerprints tell copies from other pictures: false alarms between splits, and copies that are found.

python benchmarks/fingerprints.py                    # rendered scenes
python benchmarks/fingerprints.py --photos FOLDER    # and a folder of photos, half of them against the other half
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from PIL import Image, ImageOps

from compress.data import fingerprint, rendered
from compress.data.fingerprint import Fingerprints
from compress.data.items import Request


def stored(image: Image.Image, quality: int) -> Image.Image:
    """The image as JPEG."""
    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    return Image.open(held)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """The image in another size."""
    size = round(image.width * factor), round(image.height * factor)
    return image.resize(size, Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "half": lambda image: scaled(image, 0.5),
    "0.7 times": lambda image: scaled(image, 0.7),
    "1.7 times": lambda image: scaled(image, 1.7),
    "JPEG 75": lambda image: stored(image, 75),
    "JPEG 50": lambda image: stored(image, 50),
}


def report(name: str, known: Sequence[Image.Image], others: Fingerprints) -> None:
    """Print the false alarms of `known` among `others`, and how many copies of `known` are found as themselves."""
    ids = tuple(map(str, range(len(known))))
    made = fingerprint.of_images(ids, known)
    alarms = fingerprint.matches(made, others)
    equal = sum(match.apart == 0 for match in alarms)
    pairs = len(ids) * len(others.ids)
    print(f"{name}: {len(alarms) - equal} false alarms in {pairs:,} pairs, {equal} pairs equal in every pixel")
    for copied, change in COPIES.items():
        found = fingerprint.matches(made, fingerprint.of_images(ids, map(change, known)))
        print(f"  {copied}: {sum(match.left == match.right for match in found) / len(ids):.1%} found")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--photos", type=Path, help="folder of images, searched below")
    given = parser.parse_args()
    kinds = get_args(rendered.Kind)
    known = rendered.load(rendered.Rendered(), Request("calibration", 512))
    items = [rendered.load(rendered.Rendered(kinds=(kind,)), Request("release", 5400)) for kind in kinds]
    ids = [name for each in items for name in each.ids]
    report("scenes", list(known.images), fingerprint.of_images(ids, (image for each in items for image in each.images)))
    if given.photos:
        files = [path for path in sorted(given.photos.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
        photos = [Image.open(path).convert("RGB") for path in files[::2]]
        rest = fingerprint.of_images(map(str, files[1::2]), map(Image.open, files[1::2]))
        report("photos", photos, rest)


if __name__ == "__main__":
    main()
