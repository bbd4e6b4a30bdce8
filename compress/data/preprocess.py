"""From images and texts to the arrays that a tower takes, in the way the artifact ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core.errors import CompressError, IntegrityError
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, TokenizerText, Towers, Transformers

Ids = NDArray[np.int64]
_UNBOUNDED = 1 << 20  # tokenizers that know no limit say 1e30


class Preprocess(Protocol):
    """Makes the inputs of both towers."""

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Pixels of shape (n, channels, height, width)."""
        ...

    def texts(self, texts: Sequence[str], length: int | None = None) -> tuple[Ids, Ids]:
        """Token ids and the mask of real tokens, both (n, tokens); `length` fixes the number of tokens."""
        ...


def last_token(mask: Ids) -> Ids:
    """The place of the last real token in every row of a mask (n, tokens)."""
    return np.asarray(mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1), np.int64)


def open_preprocess(folder: Path, runtime: Runtime) -> Preprocess:
    """The preprocessing that an artifact asks for. Raises IntegrityError where its processor files do not load."""
    asked = runtime.preprocess
    return _Plain(folder, asked) if isinstance(asked, Plain) else _Transformers(folder, asked, runtime.towers)


class _Plain:
    def __init__(self, folder: Path, spec: Plain) -> None:
        self._image, self._text = spec.image, spec.text
        self._tokenizer: Any = _tokenizer(folder, spec.text) if isinstance(spec.text, TokenizerText) else None

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        if self._image is None:
            raise CompressError("the runtime file does not say how images are made into inputs")
        spec = self._image
        return np.stack([_pixels(image.convert("RGB"), spec) for image in images])

    def texts(self, texts: Sequence[str], length: int | None = None) -> tuple[Ids, Ids]:
        if self._text is None:
            raise CompressError("the runtime file does not say how texts are made into inputs")
        if length not in (None, self._text.length):
            raise IntegrityError(f"the graph takes {length} tokens, the runtime file says {self._text.length}")
        if isinstance(self._text, PlainText):
            return _byte_ids(texts, self._text)
        made = self._tokenizer.encode_batch(list(texts))
        return np.array([each.ids for each in made]), np.array([each.attention_mask for each in made])


def _tokenizer(folder: Path, spec: TokenizerText) -> Any:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_file(str(folder / spec.tokenizer))
    except Exception as error:  # tokenizers raises plain Exception
        raise IntegrityError(f"does not load: {error}", spec.tokenizer) from error
    made.enable_truncation(spec.length)
    made.enable_padding(length=spec.length, pad_id=spec.pad, pad_token=made.id_to_token(spec.pad))
    return made


def _pixels(image: Image.Image, spec: PlainImage) -> NDArray[np.float32]:
    """One RGB image as (3, height, width)."""
    values = np.asarray(_fitted(image, spec), np.float32) / np.float32(spec.divide)
    if spec.channels == "bgr":
        values = values[..., ::-1].copy()
    if spec.mean is not None:
        values -= np.array(spec.mean, np.float32)
    if spec.std is not None:
        values /= np.array(spec.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _fitted(image: Image.Image, spec: PlainImage) -> Image.Image:
    """An image of exactly `size`, its middle kept in the middle."""
    high, wide = spec.size
    ratios = wide / image.width, high / image.height
    if spec.fit == "stretch":
        return image.resize((wide, high), Image.Resampling.BICUBIC)
    scale = min(ratios) if spec.fit == "pad" else max(ratios)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    made = Image.new("RGB", (wide, high), (spec.pad_value,) * 3)
    made.paste(image.resize(inner, Image.Resampling.BICUBIC), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
    return made


def _byte_ids(texts: Sequence[str], spec: PlainText) -> tuple[Ids, Ids]:
    ids = np.full((len(texts), spec.length), spec.pad, np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        told = [spec.start, *text.encode(), spec.end][: spec.length]
        ids[row, : len(told)] = told
        mask[row, : len(told)] = 1
    return ids, mask


class _Transformers:
    """A Hugging Face image processor and tokenizer, from local files, without any code from the folder."""

    def __init__(self, folder: Path, spec: Transformers, towers: Towers) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._image: Any = None
        self._token: Any = None
        try:
            if towers.vision is not None:
                self._image = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
            if towers.text is not None:
                self._token = AutoTokenizer.from_pretrained(folder, **local)
        except (OSError, ValueError) as error:
            raise IntegrityError(f"its processor files do not load: {error}", str(folder)) from error
        limit = getattr(self._token, "model_max_length", _UNBOUNDED)
        self._length = int(limit) if limit < _UNBOUNDED else None
        self._padding = spec.padding if self._length else "longest"

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        made = self._image([image.convert("RGB") for image in images], return_tensors="np")
        return np.asarray(made["pixel_values"], np.float32)

    def texts(self, texts: Sequence[str], length: int | None = None) -> tuple[Ids, Ids]:
        made = self._token(
            list(texts),
            truncation=self._length is not None or length is not None,
            max_length=length or self._length,
            padding="max_length" if length else self._padding,
            return_attention_mask=True,
            return_tensors="np",
        )
        return np.asarray(made["input_ids"], np.int64), np.asarray(made["attention_mask"], np.int64)
