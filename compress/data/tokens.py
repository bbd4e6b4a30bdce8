"""Patch tokens of a vision tower, read from a tensor inside its graph at the points where they are wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core.errors import CompressError
from compress.data.session import Encoder, open_session

FULL = 10_000
"""Points are in ten-thousandths of an image's width and height."""

Points = NDArray[np.int64]


class NoTokens(CompressError):
    """An encoder that does not say where its patch tokens are, or has none in a square grid."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one pass gives: embeddings (n, D), and the tokens of a square grid (n, side, side, width), both float32."""

    embeddings: NDArray[np.float32]
    grid: NDArray[np.float32]

    def at(self, points: Points) -> NDArray[np.float32]:
        """The tokens (m, width) at points (m, 3): the image's place in this pass, x, y in ten-thousandths."""
        side = self.grid.shape[1]
        cells = np.clip(points[:, 1:] * side // FULL, 0, side - 1)
        found: NDArray[np.float32] = self.grid[points[:, 0], cells[:, 1], cells[:, 0]]
        return found


class TokenReader:
    """The vision tower of an encoder, opened once more with its tokens as a second output."""

    def __init__(self, encoder: Encoder) -> None:
        vision = encoder.vision
        if vision is None:
            raise NoTokens("there is no vision tower")
        if vision.file.tokens is None:
            raise NoTokens("the runtime file does not say where the patch tokens are", vision.file.file)
        if isinstance(vision.fixed(vision.file.input, 0), int):
            raise NoTokens("tokens are read from towers that take any batch", vision.file.file)
        self._encoder, self._names = encoder, [vision.file.output, vision.file.tokens]
        self._session = open_session(encoder.folder, vision.file.file, encoder.runtime.session, vision.file.tokens)

    def read(self, images: Sequence[Image.Image]) -> Seen:
        """Embeddings and tokens of images. The image must fill the tower's input, as a square one does."""
        embeddings, tokens = self._session.run(self._names, self._encoder.image_feed(images))
        return Seen(np.asarray(embeddings, np.float32), _grid(np.asarray(tokens, np.float32)))


def _grid(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tokens (n, t, width) as a square grid; what stands before the patches (class token, registers) is left out."""
    if tokens.ndim != 3 or tokens.shape[1] < 1:
        raise NoTokens(f"tokens have the shape (images, tokens, width), and these are {tokens.shape}")
    side = math.isqrt(tokens.shape[1])
    return tokens[:, tokens.shape[1] - side * side :].reshape(len(tokens), side, side, -1)
