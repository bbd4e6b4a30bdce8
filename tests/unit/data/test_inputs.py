"""Plain preprocessing against pixels and bytes worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import CompressError, IntegrityError
from compress.data.preprocess import open_preprocess
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, TowerFile, Towers

ANY = TowerFile(file="a.onnx", input="x", output="y")


def _open(tmp_path, image=None, text=None):
    towers = Towers(vision=ANY if image else None, text=ANY if text else None)
    made = Runtime(target="t", towers=towers, preprocess=Plain(image=image, text=text), logit_scale=1.0)
    return open_preprocess(tmp_path, made)


def test_pad_keeps_the_aspect(tmp_path):
    image = Image.new("RGB", (8, 4), (100, 0, 0))
    made = _open(tmp_path, PlainImage(size=(8, 8), divide=1.0, pad_value=9)).images([image])
    assert made.shape == (1, 3, 8, 8)
    assert made.dtype == np.float32
    assert made[0, 0, :, 0].tolist() == [9, 9, 100, 100, 100, 100, 9, 9]


def test_stretch_and_crop(tmp_path):
    image = Image.new("RGB", (8, 4), (200, 0, 0))
    image.paste((50, 0, 0), (2, 0, 6, 4))  # the middle half is darker
    crop = _open(tmp_path, PlainImage(size=(4, 4), fit="crop", divide=1.0)).images([image])
    assert set(crop[0, 0].ravel()) == {50}
    stretched = _open(tmp_path, PlainImage(size=(4, 4), fit="stretch", divide=1.0)).images([image])
    assert stretched[0, 0, 0, 0] > 150
    assert stretched[0, 0, 0, 1] < 100


def test_channels_in_the_order_of_the_tower(tmp_path):
    spec = PlainImage(size=(1, 1), divide=1.0, mean=(1.0, 2.0, 3.0), channels="bgr")
    made = _open(tmp_path, spec).images([Image.new("RGB", (1, 1), (10, 20, 30))])
    assert made[0, :, 0, 0].tolist() == [30 - 1, 20 - 2, 10 - 3]


def test_scale_mean_and_std(tmp_path):
    spec = PlainImage(size=(2, 2), divide=255.0, mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 2.0))
    made = _open(tmp_path, spec).images([Image.new("RGB", (2, 2), (255, 0, 51))])
    np.testing.assert_allclose(made[0, :, 0, 0], [1, -2, 0.1], rtol=1e-6)


def test_bytes(tmp_path):
    ids, mask = _open(tmp_path, text=PlainText(tokenizer="bytes", length=6)).texts(["ab", "abcdef", "é"])
    assert ids.tolist() == [[2, 97, 98, 3, 0, 0], [2, 97, 98, 99, 100, 101], [2, 0xC3, 0xA9, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 1, 1, 0, 0]]


def test_a_graph_that_takes_another_length(tmp_path):
    made = _open(tmp_path, text=PlainText(tokenizer="bytes", length=6))
    with pytest.raises(IntegrityError, match="8 tokens"):
        made.texts(["a"], 8)
    with pytest.raises(CompressError, match="images"):
        made.images([Image.new("RGB", (2, 2))])
