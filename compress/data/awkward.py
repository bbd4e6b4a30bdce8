"""Images and texts as they come in practice, awkward but right, and files that have to be refused."""

from __future__ import annotations

import io
import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core.errors import UsageError
from compress.data import opening
from compress.data.scenes.scene import pick

Pixels = NDArray[np.uint8]
_FLIPS: Final = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (1, False), 7: (1, True), 8: (3, False)}
"""EXIF orientation -> quarter turns to the left, then whether mirrored, that make the stored picture of an upright."""


@dataclass(frozen=True, slots=True)
class File:
    """An encoded image and the RGB pixels that opening it has to give; None where it has to be refused."""

    content: bytes
    expected: Pixels | None


def sound(file: File) -> bool:
    """Whether opening a file gives what it has to, a level of rounding aside, or refuses it."""
    try:
        found = np.asarray(opening.read(io.BytesIO(file.content), "an awkward file"), np.int64)
    except UsageError:
        return file.expected is None
    return (
        file.expected is not None
        and found.shape == file.expected.shape
        and bool(np.abs(found - file.expected).max() <= 1)
    )


def image(case: str, picture: Pixels, rng: np.random.Generator) -> File:
    """The picture (height, width, 3) as a file of an image case."""
    return IMAGES[case](picture, rng)


def text(case: str, plain: str, rng: np.random.Generator) -> tuple[str, str]:
    """The text of a text case, and a text that means the same: itself where there is no other spelling."""
    return TEXTS[case](plain, rng)


# ---------------------------------------------------------------- images


def _stored(made: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    made.save(held, kind, **options)
    return held.getvalue()


def _grey(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).convert("L"))


def _rgb(grey: NDArray[Any]) -> Pixels:
    return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)


def _over_white(colours: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    share = np.asarray(alpha, np.float64)[:, :, None] / 255
    made: Pixels = np.round(colours * share + 255 * (1 - share)).astype(np.uint8)
    return made


def _alpha(picture: Pixels) -> Pixels:
    """Opaque on the left, fading to nothing at the right edge."""
    ramp = np.clip(np.linspace(510, 0, picture.shape[1]), 0, 255)
    return np.repeat(ramp[None], picture.shape[0], axis=0).astype(np.uint8)


def _blank(picture: Pixels, rng: np.random.Generator) -> File:
    flat = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), picture.shape)
    return File(_stored(Image.fromarray(np.ascontiguousarray(flat))), flat)


def _one_pixel(picture: Pixels, rng: np.random.Generator) -> File:
    return _blank(picture[:1, :1], rng)


def _wide(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001  (every case has one signature)
    made = Image.fromarray(picture).resize((8000, 20))
    return File(_stored(made, compress_level=1), np.asarray(made))


def _tall(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    made = Image.fromarray(picture).resize((20, 8000))
    return File(_stored(made, compress_level=1), np.asarray(made))


def _greyscale(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    return File(_stored(Image.fromarray(_grey(picture))), _rgb(_grey(picture)))


def _grey_alpha(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    grey, alpha = _grey(picture), _alpha(picture)
    made = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    return File(_stored(made), _over_white(_rgb(grey), alpha))


def _rgba(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    alpha = _alpha(picture)
    return File(_stored(Image.fromarray(np.dstack([picture, alpha]))), _over_white(picture, alpha))


def _indexed(picture: Pixels) -> tuple[Image.Image, Pixels, Pixels]:
    """The picture with a palette, the places of its pixels in the palette, and their colours."""
    made = Image.fromarray(picture).quantize(64)
    places = np.asarray(made)
    return made, places, np.array(made.getpalette(), np.uint8).reshape(-1, 3)[places]


def _palette(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    made, _, colours = _indexed(picture)
    return File(_stored(made), colours)


def _palette_alpha(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    made, places, colours = _indexed(picture)
    clear = int(places[0, 0])
    return File(_stored(made, transparency=clear), _over_white(colours, np.where(places == clear, 0, 255)))


def _one_bit(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    grey = _grey(picture)
    ink = grey > np.median(grey) - (grey.max() == np.median(grey))
    return File(_stored(Image.fromarray(ink)), _rgb(ink * 255))


def _sixteen_bit(picture: Pixels, rng: np.random.Generator) -> File:
    grey = _grey(picture)
    values = np.clip(grey.astype(np.int64) * 257 + rng.integers(-100, 101, grey.shape), 0, 65535).astype(np.uint16)
    return File(_stored(Image.fromarray(values)), _rgb(grey))


def _cmyk(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    light = picture.max(axis=2, keepdims=True)
    colours = np.where(light > 0, 255 - picture / np.maximum(light, 1) * 255.0, 0).round().astype(np.uint8)
    made = Image.frombytes("CMYK", picture.shape[1::-1], np.dstack([colours, 255 - light]).tobytes())
    return File(_stored(made, "TIFF"), np.round((255.0 - colours) * light / 255).astype(np.uint8))


def _turned(picture: Pixels, rng: np.random.Generator) -> File:
    """A photo from a camera that was held sideways or upside down."""
    way = int(pick(rng, tuple(_FLIPS)))
    turns, mirrored = _FLIPS[way]
    stored = np.rot90(picture, turns)
    content = np.ascontiguousarray(stored[:, ::-1] if mirrored else stored)
    tags = Image.Exif()
    tags[0x0112] = way
    jpeg = _stored(Image.fromarray(content), "JPEG", quality=95, exif=tags)
    seen = np.asarray(Image.open(io.BytesIO(jpeg)))
    return File(jpeg, np.rot90(seen[:, ::-1] if mirrored else seen, -turns))


def _animated(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    first, _, colours = _indexed(picture)
    later = [Image.fromarray(picture[::-1, ::step]).quantize(64).resize(first.size) for step in (1, -1)]
    return File(_stored(first, "GIF", save_all=True, append_images=later, duration=100), colours)


def _truncated(picture: Pixels, rng: np.random.Generator) -> File:
    whole = _stored(Image.fromarray(picture), pick(rng, ("PNG", "JPEG")))
    return File(whole[: int(len(whole) * rng.uniform(0.1, 0.9))], None)


def _empty(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    return File(b"", None)


def _no_image(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    return File(b"<!doctype html><title>404</title>" + rng.bytes(64), None)


def _oversized(picture: Pixels, rng: np.random.Generator) -> File:  # noqa: ARG001
    """A hundred bytes that say they are a picture of 60,000 by 60,000."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(picture.tobytes()[:64])
    chunks = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (header, data))
    return File(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), None)


IMAGES: Final[dict[str, Callable[[Pixels, np.random.Generator], File]]] = {
    "blank": _blank, "one_pixel": _one_pixel, "wide": _wide, "tall": _tall, "grey": _greyscale,
    "grey_alpha": _grey_alpha, "rgba": _rgba, "palette": _palette, "palette_alpha": _palette_alpha,
    "one_bit": _one_bit, "sixteen_bit": _sixteen_bit, "cmyk": _cmyk, "exif_turned": _turned,
    "animated": _animated, "truncated": _truncated, "zero_bytes": _empty, "no_image": _no_image,
    "oversized": _oversized,
}  # fmt: skip

# ---------------------------------------------------------------- texts


def _said(change: Callable[[str], str]) -> Callable[[str, np.random.Generator], tuple[str, str]]:
    """A case whose text has no other spelling."""

    def make(plain: str, rng: np.random.Generator) -> tuple[str, str]:  # noqa: ARG001
        made = change(plain)
        return made, made

    return make


def _combining(plain: str, rng: np.random.Generator) -> tuple[str, str]:
    """Accents as marks of their own, and the same in composed letters."""
    composed = plain + " " + "".join(pick(rng, "éüñçåôšžőṁ") for _ in range(3))
    return unicodedata.normalize("NFD", composed), composed


def _padded(plain: str, rng: np.random.Generator) -> tuple[str, str]:
    return pick(rng, (" ", "\t", "\n", "  \n")) + plain + pick(rng, (" ", "\n", "\t ")), plain


TEXTS: Final[dict[str, Callable[[str, np.random.Generator], tuple[str, str]]]] = {
    "empty_text": _said(lambda _: ""),
    "whitespace": _said(lambda _: " \t\n "),
    "padded": _padded,
    "long_text": _said(lambda plain: " ".join([plain] * 60)),
    "emoji": _said(lambda plain: plain + " \U0001f469\U0001f3fd\u200d\U0001f680\U0001f1fa\U0001f1f3\u2764\ufe0f"),
    "right_to_left": _said(lambda plain: "\u0646\u0635 \u05d8\u05e7\u05e1\u05d8 \u202b" + plain + "\u202c"),
    "combining": _combining,
    "control": _said(lambda plain: "\x00" + plain + "\x07\x1b[0m\u200b\ufeff\x7f"),
}  # fmt: skip
