"""Rendered scenes: no text of one split in another, marks where something was drawn, the same bytes for an index."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.scenes import canvas, charts, pages, pins, reading, relations, shapes
from compress.data.scenes.codes import ALPHABET, CONFUSABLES, code_split, look_alikes, sample_code
from compress.data.scenes.scene import SIZE, SPLITS, split_of, stream

KINDS = {"reading": reading, "shapes": shapes, "relations": relations, "pins": pins, "charts": charts}
SAMPLES = 60
TOLD = {"reading": "the text ", "pins": "pin "}


def scene(kind, split, index, seed=0):
    return KINDS[kind].render(stream(kind, split, seed, index), split, index)


@pytest.fixture(scope="module")
def sampled():
    """Scenes of every kind in every split, with two seeds."""
    return {
        (kind, split): [scene(kind, split, index, seed=index % 2) for index in range(SAMPLES)]
        for kind in KINDS
        for split in SPLITS
    }


def texts(scenes):
    return {text for each in scenes for text in (each.caption, *each.negatives)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_one_split_is_in_another(sampled, kind):
    for one, other in combinations(SPLITS, 2):
        assert not texts(sampled[kind, one]) & texts(sampled[kind, other])


@pytest.mark.parametrize("kind", TOLD)
def test_no_code_of_one_split_is_in_another(sampled, kind):
    """Not even behind another prompt: the code alone decides the split."""
    codes = {split: {text.split()[-1] for text in texts(sampled[kind, split])} for split in SPLITS}
    for split, found in codes.items():
        assert {code_split(code) for code in found} == {split}


def test_all_the_texts_that_shapes_can_say_are_apart():
    said = {
        split: {form.format(name) for form in shapes.TEMPLATES[split] for name in shapes.class_names()}
        for split in SPLITS
    }
    for one, other in combinations(SPLITS, 2):
        assert not said[one] & said[other]


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_not_among_its_negatives(sampled, kind):
    for split in SPLITS:
        for each in sampled[kind, split]:
            assert each.negatives or (kind, split) == ("charts", "calibration")  # too small a split for each value
            assert each.caption not in each.negatives
            assert len(set(each.negatives)) == len(each.negatives)


@pytest.mark.parametrize("split", ["development", "release"])
def test_reading_has_fifteen_negatives(sampled, split):
    assert {len(each.negatives) for each in sampled["reading", split]} == {15}
    lengths = {len(text.split()[-1]) for text in texts(sampled["reading", split])}
    assert lengths == {2, 3, 4}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_index_is_the_same_bytes(sampled, kind):
    for split in ("train", "release"):
        for index in (0, 3, 10):
            again, first = scene(kind, split, index, seed=index % 2), sampled[kind, split][index]
            assert again.image.tobytes() == first.image.tobytes()
            assert (again.caption, again.negatives, again.slices, again.marks) == (
                first.caption, first.negatives, first.slices, first.marks
            )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_indices_seeds_and_splits_are_other_images(sampled, kind):
    made = [each.image.tobytes() for split in SPLITS for each in sampled[kind, split]]
    made += [scene(kind, "release", index, seed=9).image.tobytes() for index in range(3)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_images(sampled, kind):
    for split in SPLITS:
        for each in sampled[kind, split]:
            assert each.image.shape == (SIZE, SIZE, 3)
            assert each.image.dtype == np.uint8
            assert each.image.std() > 1


# ---------------------------------------------------------------- marks


@pytest.fixture
def drawn(monkeypatch):
    """Records, for every scene that is rendered, how much of each pixel was painted."""
    masks = []
    real = canvas.paint

    def paint(image, mask, colour):
        masks.append(np.asarray(mask, np.float32))
        real(image, mask, colour)

    monkeypatch.setattr(canvas, "paint", paint)
    return masks


def inside(corners, points, slack):
    """Whether points lie inside a convex quadrilateral, `slack` pixels added on every side."""
    corners = np.array(corners, float)
    ends = np.roll(corners, -1, axis=0)
    along = ends - corners
    normal = np.stack([along[:, 1], -along[:, 0]], 1) / np.linalg.norm(along, axis=1)[:, None].clip(1e-9)
    outward = ((points[:, None] - corners) * normal).sum(-1)
    return (outward <= slack).all(1) | (outward >= -slack).all(1)


@pytest.mark.parametrize("kind", ["reading", "shapes", "relations", "charts"])
def test_marks_cover_what_was_drawn(drawn, kind):
    """Every pixel that was painted lies in a mark: nothing is there that a mark does not tell of."""
    for index in range(24):
        drawn.clear()
        made = scene(kind, "train", index)
        painted = np.argwhere(np.max(drawn, axis=0) > 128)[:, ::-1] + 0.5
        covered = np.any([inside(mark.corners, painted, slack=1.5) for mark in made.marks], axis=0)
        assert covered.mean() > 0.99
        assert made.marks


@pytest.mark.parametrize("kind", ["reading", "shapes", "relations", "charts"])
def test_every_mark_has_something_in_it(drawn, kind):
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).reshape(-1, 2) + 0.5
    for index in range(24):
        drawn.clear()
        made = scene(kind, "train", index)
        painted = np.max(drawn, axis=0).ravel() > 40
        for mark in made.marks:
            assert painted[inside(mark.corners, grid, slack=0)].any(), mark


def test_characters_are_marked_in_order(sampled):
    for split in SPLITS:
        for each in sampled["reading", split]:
            assert "".join(mark.label for mark in each.marks) == each.caption.split()[-1]
            assert {mark.kind for mark in each.marks} == {"char"}


def test_pages_mark_their_characters():
    made = pages.render(stream("pages", "train", 0, 0), "train", 0)
    assert len(made.marks) > 4
    assert {mark.label for mark in made.marks} <= set(ALPHABET)
    assert (made.caption, made.negatives) == (pages.CAPTION, ())


# ---------------------------------------------------------------- codes and splits


@given(st.text(ALPHABET, min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_a_code_and_its_look_alikes_share_a_split(code, data):
    at = data.draw(st.integers(0, len(code) - 1))
    group = next((group for group in CONFUSABLES if code[at] in group), code[at])
    other = code[:at] + data.draw(st.sampled_from(group)) + code[at + 1 :]
    assert code_split(other) == code_split(code)


@given(st.text(ALPHABET, min_size=2, max_size=4), st.integers(0, 1 << 16))
@settings(max_examples=40, deadline=None)
def test_look_alikes(code, seed):
    found = look_alikes(np.random.default_rng(seed), code, 15)
    assert len(set(found)) == len(found) <= 15
    assert code not in found
    assert {code_split(other) for other in found} <= {code_split(code)}
    assert all(len(other) == len(code) for other in found)
    if code_split(code) in ("development", "release"):
        assert len(found) == 15


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("including", ["", "5S", "0ODQ"])
def test_sampled_codes(split, including):
    rng = np.random.default_rng(0)
    for length in (2, 4):
        code = sample_code(rng, split, length, including)
        assert (len(code), code_split(code)) == (length, split)
        assert not including or set(code) & set(including)


def test_splits_have_their_shares():
    counts = dict.fromkeys(SPLITS, 0)
    for key in range(4000):
        counts[split_of(str(key))] += 1
    for split, share in zip(SPLITS, (0.45, 0.05, 0.25, 0.25), strict=True):
        assert counts[split] / 4000 == pytest.approx(share, abs=0.03)
