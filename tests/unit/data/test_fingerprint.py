"""The same picture is found again however it was stored; pictures that merely look alike are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from compress.data import fingerprint
from compress.data.items import Request
from compress.data.rendered import Rendered, load


def stored(image, quality):
    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    return Image.open(held)


def scaled(image, factor):
    side = round(image.width * factor)
    return image.resize((side, side), Image.Resampling.BICUBIC)


COPIES = {
    "exact": lambda image: image,
    "mirrored": ImageOps.mirror,
    "re-encoded": lambda image: stored(image, 75),
    "half": lambda image: scaled(image, 0.5),
    "larger": lambda image: scaled(image, 1.7),
    "mirrored, smaller, re-encoded": lambda image: stored(ImageOps.mirror(scaled(image, 0.7)), 85),
    "other mode": lambda image: image.convert("RGBA"),
}


def scenes(split, count):
    items = load(Rendered(), Request(split, count))
    return items.ids, list(items.images)


@pytest.fixture(scope="module")
def calibration():
    return scenes("calibration", 60)


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_is_found_with_its_original(calibration, copied):
    ids, images = calibration
    known = fingerprint.of_images(ids, images)
    copies = [COPIES[copied](image) for image in images]
    found = fingerprint.matches(known, fingerprint.of_images([f"copy of {name}" for name in ids], copies))
    right = [match for match in found if match.right == f"copy of {match.left}"]
    assert len(right) >= 0.9 * len(ids)
    assert all(match.apart == 0 for match in right) == (copied in {"exact", "other mode"})
    if "mirrored" in copied:
        assert np.mean([match.mirrored for match in right]) > 0.9


def test_a_blank_page_is_like_nothing_but_itself():
    """Faint small print on paper of the same colour has nearly its thumbnails."""
    faint, blank = Image.new("RGB", (64, 64), (200, 200, 200)), Image.new("RGB", (64, 64), (200, 200, 200))
    faint.paste((203, 203, 203), (10, 10, 20, 16))
    known = fingerprint.of_images(["faint"], [faint])
    assert not fingerprint.matches(known, fingerprint.of_images(["blank"], [blank]))
    assert fingerprint.matches(fingerprint.of_images(["blank"], [blank]), fingerprint.of_images(["again"], [blank]))


def test_other_scenes_are_other_pictures(calibration):
    known = fingerprint.of_images(*calibration)
    assert fingerprint.matches(known, fingerprint.of_images(*scenes("release", 400))) == ()


def test_one_copy_among_many_is_named(calibration):
    ids, images = calibration
    names, others = scenes("release", 50)
    planted = fingerprint.of_images([*names, "planted"], [*others, stored(images[7], 70)])
    (match,) = fingerprint.matches(fingerprint.of_images(ids, images), planted)
    assert (match.left, match.right) == (ids[7], "planted")


def test_large_images_are_compared_in_detail():
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8)).repeat(28, 0).repeat(28, 1)

    def photo(seed):
        detail = np.random.default_rng(seed).integers(-60, 61, (28, 28)).repeat(8, 0).repeat(8, 1)
        return Image.fromarray(np.clip(coarse + detail, 0, 255).astype(np.uint8)).convert("RGB")

    known = fingerprint.of_images(["a"], [photo(1)])
    assert fingerprint.matches(known, fingerprint.of_images(["b"], [photo(2)])) == ()
    for copied in ("half", "re-encoded", "mirrored, smaller, re-encoded"):
        (match,) = fingerprint.matches(known, fingerprint.of_images(["c"], [COPIES[copied](photo(1))]))
        assert (match.left, match.mirrored) == ("a", "mirrored" in copied)


def test_flat_images_are_compared_by_their_colour():
    def flat(*shades):
        return fingerprint.of_images(map(str, shades), [Image.new("L", (50, 50), shade) for shade in shades])

    assert [match.right for match in fingerprint.matches(flat(10, 200), flat(10, 100, 200))] == ["10", "200"]


def test_nothing_matches_nothing(calibration):
    none = fingerprint.of_images((), ())
    assert fingerprint.matches(none, fingerprint.of_images(*calibration)) == ()
    assert fingerprint.matches(fingerprint.of_images(*calibration), none) == ()
