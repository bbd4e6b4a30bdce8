"""Rendered scenes: no text of one split in another, marks where something was drawn, the same bytes for an index."""

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data import rendered
from compress.data.items import Request
from compress.data.scenes import (
    canvas,
    chart_lines,
    charts,
    confusables,
    pages,
    pins,
    rare,
    reading,
    relations,
    shapes,
    twins,
    worn,
)  # fmt: skip
from compress.data.scenes.codes import ALPHABET, CONFUSABLES, code_split, look_alikes, sample_code
from compress.data.scenes.scene import SIZE, SPLITS, split_of, stream

KINDS = {
    "reading": reading, "shapes": shapes, "relations": relations, "pins": pins, "charts": charts, "reading_worn": worn,
    "look_alikes": confusables, "rare": rare, "chart_lines": chart_lines, "twins": twins,
}  # fmt: skip
SAYING = [kind for kind in KINDS if kind != "twins"]  # twins are told apart without words
SAMPLES = 60
TOLD = {"reading": "the text ", "pins": "pin ", "reading_worn": "the text "}


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


@pytest.mark.parametrize("kind", SAYING)
def test_no_text_of_one_split_is_in_another(sampled, kind):
    for one, other in combinations(SPLITS, 2):
        assert not texts(sampled[kind, one]) & texts(sampled[kind, other])


@pytest.mark.parametrize("kind", TOLD)
def test_no_code_of_one_split_is_in_another(sampled, kind):
    """Not even behind another prompt: the code alone decides the split."""
    codes = {split: {text.split()[-1] for text in texts(sampled[kind, split])} for split in SPLITS}
    for split, found in codes.items():
        assert {code_split(code) for code in found} == {split}


@pytest.mark.parametrize("kind", ["reading_worn", "look_alikes", "rare", "chart_lines"])
def test_what_suites_test_on_is_in_no_other_split_of_any_kind(sampled, kind):
    for split in SPLITS[1:]:
        others = {text for (_, part), made in sampled.items() if part != split for text in texts(made)}
        assert not texts(sampled[kind, split]) & (others - {twins.CAPTION})


def test_what_is_put_into_a_code_does_not_change_its_split(sampled):
    for split in SPLITS:
        codes = {text.split()[-1] for text in texts(sampled["look_alikes", split])}
        assert {code_split("".join(char for char in code if char in ALPHABET)) for code in codes} == {split}


def test_words_and_amounts_belong_to_the_split():
    rng = np.random.default_rng(0)
    for split in SPLITS:
        word = rare.sample_word(rng, split)
        assert {rare.word_split(each) for each in (word, *rare.neighbours(rng, word))} == {split}
        for receipt in twins._receipts(rng, split):
            assert {split_of("amount:" + amount) for _, amount in receipt.lines} == {split}


def test_all_the_texts_that_shapes_can_say_are_apart():
    said = {
        split: {form.format(name) for form in shapes.TEMPLATES[split] for name in shapes.class_names()}
        for split in SPLITS
    }
    for one, other in combinations(SPLITS, 2):
        assert not said[one] & said[other]


@pytest.mark.parametrize("kind", SAYING)
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


# ---------------------------------------------------------------- kinds of the edge-case suites


def test_doubles_differ_in_one_place_and_in_ink(sampled):
    for each in sampled["look_alikes", "release"]:
        true, wrong = each.caption.split()[-1], each.negatives[0].split()[-1]
        pairs = confusables.PAIRS[each.slices["pair"]]
        assert any(
            true[:at] + other + true[at + len(one) :] == wrong
            for pair in pairs
            for one, other in (pair, pair[::-1])
            for at in range(len(true))
            if true[at : at + len(one)] == one
        )


def test_ink_in_which_doubles_differ():
    """Ink is counted apart from where it stands: the same character a pixel further is no difference."""
    face = ("STIXGeneral", 14)
    assert confusables.differ("I", "I", face) == 0
    assert confusables.differ("1", "l", face) < confusables.INK < confusables.differ("1", "7", face)
    dots = [confusables.differ(mark, " ", ("DejaVuSansMono", 20)) for mark in ",."]
    assert dots[0] - dots[1] <= confusables.differ(",", ".", ("DejaVuSansMono", 20)) <= sum(dots)


def test_which_double_is_printed_is_a_coin(sampled):
    shown = [scene("look_alikes", "release", index).caption for index in range(0, 13 * 60, 13)]
    assert 15 < sum("O" in caption for caption in shown) < 45


def test_in_a_paragraph_no_wrong_code_stands(monkeypatch):
    drawn = []
    real = worn._printed

    def printed(rng, lines, face, condition):
        drawn.append({word for line in lines for word in line})
        return real(rng, lines, face, condition)

    monkeypatch.setattr(worn, "_printed", printed)
    for index in range(5, 96, 6):
        made = scene("reading_worn", "release", index)
        assert made.slices["condition"] == "paragraph"
        assert made.caption.split()[-1] in drawn[-1]
        assert len(drawn[-1]) > 1
        assert not {text.split()[-1] for text in made.negatives} & drawn[-1]


@pytest.mark.parametrize("difference", twins.DIFFERENCES)
def test_a_twin_differs_where_the_second_view_does_not(difference):
    """Without noise the second view would be the twin but for the mark: their difference is local and visible."""
    index = 3 * twins.DIFFERENCES.index(difference)
    query, same, twin = (twins.render(stream("twins", "release", 0, 5), "release", index + part) for part in range(3))
    assert [each.slices["part"] for each in (query, same, twin)] == list(twins.PARTS)
    assert {each.slices["difference"] for each in (query, same, twin)} == {difference}
    apart = np.abs(same.image.astype(int) - twin.image.astype(int)).max(axis=2)
    marked = (apart > 60).mean()
    assert (0.2 if difference == "hue" else 0.002) < marked < (0.7 if difference == "hue" else 0.03)


def test_wrong_numbers_are_as_likely_as_true_ones():
    """Nobody who does not look at the chart may know which numbers never occur."""
    made = [scene("chart_lines", "release", index) for index in range(0, 240, 2)]
    wrong = [int(text.split()[-1]) for each in made for text in each.negatives]
    assert min(wrong) >= 30
    assert {len(each.negatives) for each in made} == {5}


@pytest.mark.parametrize("kind", ["reading_worn", "look_alikes", "rare", "chart_lines", "twins"])
def test_a_round_holds_every_slice_equally_often(kind):
    items = rendered.load(rendered.Rendered(kinds=(kind,)), Request("release", None, 1))
    for name, labels in items.columns.items():
        counts = {label: labels.count(label) for label in labels}
        if (kind, name) not in {
            ("rare", "tail"),
            ("chart_lines", "asks"),
        }:  # three parts are tail; order is asked twice
            assert len(set(counts.values())) == 1


def test_another_process_makes_the_same_bytes():
    code = (
        "from compress.data import rendered\nfrom compress.data.items import Request\n"
        "kinds = ('reading_worn', 'look_alikes', 'rare', 'chart_lines', 'twins')\n"
        "print(rendered.load(rendered.Rendered(kinds=kinds), Request('release', 60)).digest)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert told[0].stdout == told[1].stdout != ""
