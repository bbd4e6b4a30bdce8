"""Fingerprints in files: what was kept is what was made, part by part, and a stopped run leaves none behind."""

import numpy as np
import pytest
from PIL import Image

from compress.data import album, fingerprint
from compress.data.album import Album


def images(count, side=130):
    rng = np.random.default_rng(0)
    for at in range(count):
        size = side if at % 2 else 20  # only large ones have a fine thumbnail
        yield f"i{at}", Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(album, "PART", 3)


def test_parts_hold_what_was_made(tmp_path):
    kept = album.kept(tmp_path / "a" / "digest", images(7))
    assert len(kept.parts) == 3
    names, pictures = zip(*images(7), strict=True)
    whole = fingerprint.of_images(names, pictures)
    read = list(kept.chunks())
    assert [len(part.ids) for part in read] == [3, 3, 1]
    joined = fingerprint.joined(fingerprint.joined(read[0], read[1]), read[2])
    assert joined.ids == whole.ids
    assert joined.exact == whole.exact
    np.testing.assert_array_equal(joined.small, whole.small)
    np.testing.assert_array_equal(joined.middle, whole.middle)
    for one, other in zip(joined.fine, whole.fine, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_kept_is_not_made_again(tmp_path):
    first = album.kept(tmp_path / "digest", images(4))

    def never():
        raise AssertionError("made again")
        yield

    assert album.kept(tmp_path / "digest", never()) == first


def test_a_stopped_run_keeps_nothing(tmp_path):
    def stopped():
        yield from images(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        album.kept(tmp_path / "digest", stopped())
    assert not list(tmp_path.iterdir())


def test_albums_are_joined_and_empty_ones_have_no_parts(tmp_path):
    held = fingerprint.of_images(*zip(*images(2), strict=True))
    both = Album((held,)) + album.kept(tmp_path / "digest", images(4))
    assert [len(part.ids) for part in both.chunks()] == [2, 3, 1]
    assert list(album.kept(tmp_path / "none", iter(())).chunks()) == []
