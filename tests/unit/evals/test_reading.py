"""Reading by choice and transcription: candidates, slices, greedy CTC and edits, against answers worked out by hand."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import CompressError, UsageError
from compress.data.items import Request
from compress.evals import look_alikes
from compress.evals.ctc import NO_ANSWER, best_path, collapsed
from compress.evals.task import Embeddings, read
from compress.evals.text_slices import Slicing, slices_of, within

TASK = """
version: 1
name: shelf
kind: {kind}
description: what the images say
data: {{source: folder, path: shelf, columns: [text, page]}}
{options}
metrics: {{accuracy: right}}
"""


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "shelf").mkdir()

    def make(texts):
        lines = []
        for at, text in enumerate(texts):
            Image.new("RGB", (8, 4 + at), (at, 0, 0)).save(tmp_path / "shelf" / f"{at}.png")
            lines.append(json.dumps({"file": f"{at}.png", "text": text, "page": str(at // 2)}))
        (tmp_path / "shelf" / "labels.jsonl").write_text("\n".join(lines))

    make(["BOOK", "BOAT", "LOOK", "5.00", "CAT"])
    return make


def task(folder, kind, options):
    file = folder / "shelf.yaml"
    file.write_text(TASK.format(kind=kind, options=options))
    return read(file)


def load(folder, kind, options):
    made = task(folder, kind, options)
    return made, made.load(Request("all", roots=(folder,)))


def test_candidates_are_words_of_the_length_and_changed_characters(shelf, tmp_path):
    _, data = load(tmp_path, "words", "look_alikes: 4\nwords: 2\ntemplate: 'it says {}'\ncluster: page")
    rows = {data.texts[row[0]]: [data.texts[at].removeprefix("it says ") for at in row]
            for row in data.arrays["candidates"]}  # fmt: skip
    assert list(rows) == ["it says BOOK", "it says BOAT", "it says LOOK", "it says 5.00", "it says CAT"]
    _, first, second, *changed = rows["it says BOOK"]
    assert [first, second] == ["LOOK", "BOAT"]  # three letters in place, two letters in place; CAT is shorter
    assert len(set(changed)) == 4
    for each in changed:
        assert sum(one != other for one, other in zip("BOOK", each, strict=True)) == 1
    assert set("".join(each for row in rows.values() for each in row)) <= set("BOKATLC5.0")
    assert data.arrays["clusters"].tolist() == [0, 0, 1, 1, 2]


def test_a_reader_of_texts_and_one_that_knows_the_words(shelf, tmp_path):
    made, data = load(tmp_path, "words", "look_alikes: 4\nwords: 2\ncluster: page")
    texts = np.eye(len(data.texts), dtype="f")
    right = texts[data.arrays["candidates"][:, 0]]
    wrong = right.copy()
    wrong[0] = texts[data.arrays["candidates"][0, 3]]
    found = made.measure(data, Embeddings(right, texts), Embeddings(wrong, texts))["accuracy"]
    assert found.reference.tolist() == [1] * 5
    assert found.candidate.tolist() == [0, 1, 1, 1, 1]
    assert found.chance == pytest.approx(1 / 3)
    assert [found.clusters.count(each) for each in dict.fromkeys(found.clusters)] == [2, 2, 1]


def test_words_that_cannot_be_asked(shelf, tmp_path):
    with pytest.raises(UsageError, match="5 different texts are too few for 10 wrong words"):
        load(tmp_path, "words", "")
    with pytest.raises(UsageError, match=r"not among data\.columns"):
        load(tmp_path, "words", "text: title")


def test_confusions_go_both_ways():
    known = look_alikes.confusions()
    assert all(char in known[other] for char, others in known.items() for other in others)
    assert all(char not in others for char, others in known.items())


def test_slices(shelf, tmp_path):
    _, data = load(
        tmp_path, "words",
        'look_alikes: 1\nwords: 2\nslices: {length: [3], height: [5, 6], digits: true, case: true, characters: ["0O"]}',
    )  # fmt: skip
    assert data.slices == {
        "length": ("4+", "4+", "4+", "4+", "1-3"),
        "height": ("1-5", "1-5", "6", "7+", "7+"),
        "digits": ("none", "none", "none", "price", "none"),
        "case": ("upper", "upper", "upper", "none", "upper"),
        "0O": ("with", "with", "with", "with", "without"),
    }
    assert slices_of(Slicing(digits=True, case=True), ("A1", "1.005", "Ab", "ab", "12,50"), ())["digits"] == (
        "number", "number", "none", "none", "price",
    )  # fmt: skip
    assert slices_of(Slicing(case=True), ("A1", "Ab", "ab"), ())["case"] == ("upper", "mixed", "lower")
    assert [within(each, (3, 6)) for each in (1, 3, 4, 7)] == ["1-3", "1-3", "4-6", "7+"]


def test_greedy_ctc():
    # classes by step, blank is 2: A A - A B B - says A, A, B
    path = [0, 0, 2, 0, 1, 1, 2]
    logits = np.full((1, 3, 7), -1.0)
    logits[0, path, range(7)] = 3.0
    assert best_path(logits).tolist() == [path]
    assert collapsed(path, 2) == (0, 0, 1)
    logits[0, :, 0] = 0.0
    logits[0, 0, 3] = np.nan
    logits[0, 1, 4] = np.inf
    assert best_path(logits).tolist() == [[NO_ANSWER, 0, 2, NO_ANSWER, NO_ANSWER, 1, 2]]
    assert collapsed([NO_ANSWER, NO_ANSWER, 2, 0], 2) == (NO_ANSWER, 0)
    assert collapsed([2, 2], 2) == ()


def spoken(words, alphabet, steps=6):
    """Logits (n, classes, steps) of texts without doubled letters; the blank is the last class."""
    made = np.zeros((len(words), len(alphabet) + 1, steps), "f")
    for row, word in enumerate(words):
        for at in range(steps):
            made[row, alphabet.index(word[at]) if at < len(word) else len(alphabet), at] = 1
    return made


@pytest.mark.parametrize("layout", ["classes_steps", "steps_classes"])
def test_exact_match_and_edits(shelf, tmp_path, layout):
    shelf(["BOAT", "CAT", "CAT", "OX"])
    made, data = load(
        tmp_path, "transcription", f"alphabet: ABCOT\nblank: 5\nlayout: {layout}\nslices: {{length: [3]}}"
    )
    assert data.texts == ()

    def model(words):
        logits = spoken(words, "ABCOT")
        logits = logits if layout == "classes_steps" else logits.swapaxes(1, 2)
        return Embeddings(logits.reshape(4, -1), np.empty((0, 0), "f"))

    found = made.measure(data, model(["BOAT", "CAT", "CAT", "O"]), model(["BAT", "CATO", "", "OTATOT"]))
    exact, characters = found["exact"], found["character_accuracy"]
    assert exact.reference.tolist() == [1, 1, 1, 0]  # X is not in the alphabet and can never be read
    assert exact.candidate.tolist() == [0, 0, 0, 0]
    assert exact.chance == 0.5  # CAT every time
    np.testing.assert_allclose(characters.reference, [1, 1, 1, 1 / 2])
    np.testing.assert_allclose(characters.candidate, [3 / 4, 2 / 3, 0, 1 - 5 / 2])
    assert characters.weights.tolist() == [4, 3, 3, 2]
    assert characters.chance == pytest.approx(1 - (2 + 0 + 0 + 3) / 12)  # CAT: two edits from BOAT, three from OX
    assert not characters.binary
    assert Counter(exact.slices["length"]) == {"1-3": 3, "4+": 1}


def test_a_tower_that_does_not_fit_the_alphabet(shelf, tmp_path):
    made, data = load(tmp_path, "transcription", "alphabet: ABCDEFGHIJKL\nblank: 12")
    odd = Embeddings(np.ones((5, 27), "f"), np.empty((0, 0), "f"))
    with pytest.raises(CompressError, match="27 numbers an image, no steps of 13 classes"):
        made.measure(data, odd, odd)
    for options in ("alphabet: AAB\nblank: 0", "alphabet: AB\nblank: 3"):
        with pytest.raises(UsageError, match="blank"):
            load(tmp_path, "transcription", options)


def test_the_blank_may_stand_anywhere(shelf, tmp_path):
    shelf(["AB"])
    _, data = load(tmp_path, "transcription", "alphabet: AB\nblank: 1")
    assert data.arrays["targets"].tolist() == [[0, 2]]
    assert data.arrays["decoding"].tolist() == [3, 1, 1]
