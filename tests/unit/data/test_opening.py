"""Opening image files: pixels worked out by hand for every container, and files that are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import UsageError
from compress.data import awkward, opening
from compress.data.folder import opened

ROW = [[(10, 20, 30), (200, 100, 0)]]
PIXELS = np.array(ROW, np.uint8)


def read(image, kind="PNG", **options):
    held = io.BytesIO()
    image.save(held, kind, **options)
    return np.asarray(opening.read(held, "here"))


def test_plain_rgb_is_as_it_is():
    assert read(Image.fromarray(PIXELS)).tolist() == PIXELS.tolist()


@pytest.mark.parametrize(
    ("way", "stored"),
    [
        # of the stored picture, where in the upright one row 0 and column 0 are; upright is 1 2 over 3 4
        (1, [[1, 2], [3, 4]]),  # top, left
        (2, [[2, 1], [4, 3]]),  # top, right
        (3, [[4, 3], [2, 1]]),  # bottom, right
        (4, [[3, 4], [1, 2]]),  # bottom, left
        (5, [[1, 3], [2, 4]]),  # left, top
        (6, [[2, 4], [1, 3]]),  # right, top
        (7, [[4, 2], [3, 1]]),  # right, bottom
        (8, [[3, 1], [4, 2]]),  # left, bottom
    ],
)
def test_exif(way, stored):
    tags = Image.Exif()
    tags[0x0112] = way
    values = np.array(stored, np.uint8) * 50
    assert read(Image.fromarray(values), exif=tags)[:, :, 0].tolist() == [[50, 100], [150, 200]]


def test_transparency_shows_white():
    ink = Image.new("RGBA", (3, 1))
    for at, alpha in enumerate((255, 51, 0)):  # 51 is a fifth
        ink.putpixel((at, 0), (0, 100, 200, alpha))
    assert read(ink)[0].tolist() == [[0, 100, 200], [204, 224, 244], [255, 255, 255]]


def test_transparent_palette_and_grey():
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([9, 8, 7, 50, 60, 70])
    indexed.putpixel((1, 0), 1)
    assert read(indexed)[0].tolist() == [[9, 8, 7], [50, 60, 70]]
    assert read(indexed, transparency=0)[0].tolist() == [[255] * 3, [50, 60, 70]]
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (77, 255))
    assert read(grey)[0].tolist() == [[255] * 3, [77] * 3]


def test_16_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 257, 32896, 65535, 128, 129]], np.uint16)  # 257 a level, the nearest
    assert read(Image.fromarray(values))[0, :, 0].tolist() == [0, 1, 128, 255, 0, 1]
    assert opening.rgb(Image.fromarray(values.astype(np.int32))).getpixel((2, 0)) == (128, 128, 128)


def test_one_bit_and_cmyk():
    assert read(Image.fromarray(np.array([[True, False]])))[0].tolist() == [[255] * 3, [0] * 3]
    ink = Image.new("CMYK", (1, 1), (255, 0, 0, 51))  # no red, four fifths of the light
    assert read(ink, "TIFF")[0, 0].tolist() == [0, 204, 204]


def test_of_an_animation_the_first_frame():
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    made = read(first, "GIF", save_all=True, append_images=[second], duration=50)
    assert made.shape == (4, 4, 3)
    assert made[0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    "image", [Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 70_000), Image.new("I", (1, 1), -1)]
)
def test_pixels_of_unknown_range_are_refused(image):
    with pytest.raises(UsageError, match="no known range"):
        opening.rgb(image)


def whole(kind):
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(held, kind)
    return held.getvalue()


HUGE = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
BROKEN = {
    "png": whole("PNG")[:1500],
    "jpeg": whole("JPEG")[:600],
    "gif": whole("GIF")[:900],
    "tiff": whole("TIFF")[:1500],
    "zero": b"",
    "text": b"<html>",
    "huge": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + HUGE + struct.pack(">I", zlib.crc32(HUGE)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_image_is_refused_by_name(name, tmp_path):
    file = tmp_path / f"{name}.png"
    file.write_bytes(BROKEN[name])
    with pytest.raises(UsageError, match="is no image that can be read") as caught:
        opened(file, None)
    assert caught.value.where == str(file)


# ---------------------------------------------------------------- awkward files


@pytest.fixture
def picture():
    return np.random.default_rng(3).integers(0, 256, (16, 24, 3)).astype(np.uint8)


@pytest.mark.parametrize("case", awkward.IMAGES)
def test_an_awkward_file_is_sound(case, picture):
    for seed in range(8):
        assert awkward.sound(awkward.image(case, picture, np.random.default_rng(seed)))


NAIVE = {"grey_alpha", "rgba", "palette_alpha", "sixteen_bit", "exif_turned"}


@pytest.mark.parametrize("case", awkward.IMAGES)
def test_a_path_that_only_converts_is_found_out(case, picture, monkeypatch):
    """Pillow's own convert("RGB") drops alpha, clips 16 bits and knows no EXIF."""
    monkeypatch.setattr(opening, "rgb", lambda image: image.convert("RGB"))
    assert awkward.sound(awkward.image(case, picture, np.random.default_rng(0))) == (case not in NAIVE)


def test_a_path_that_accepts_anything_is_found_out(picture, monkeypatch):
    monkeypatch.setattr(opening, "read", lambda *_: Image.new("RGB", (24, 16)))
    refused = {
        case for case in awkward.IMAGES if awkward.image(case, picture, np.random.default_rng(0)).expected is None
    }
    assert refused == {"truncated", "zero_bytes", "no_image", "oversized"}
    assert not any(awkward.sound(awkward.image(case, picture, np.random.default_rng(0))) for case in awkward.IMAGES)


@pytest.mark.parametrize("case", awkward.TEXTS)
def test_awkward_texts(case):
    said, same = awkward.text(case, "the text AB", np.random.default_rng(0))
    assert said.encode().decode() == said  # UTF-8, as everything that reaches a tokenizer
    assert (said == same) == (case not in ("padded", "combining"))
    assert len(said.split()) > 77 if case == "long_text" else said != "the text AB"
