"""Classes and prompts from lists that lie below a data root, and classes that are read off logits."""

import json

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import CompressError, DocumentError, EnvironmentFailure, UsageError
from compress.data import listing
from compress.data.items import Request
from compress.data.listing import Listing
from compress.evals.task import Embeddings, read

LABELS = ("cat", "Dog", "cat", "owl")
TASK = """
version: 1
name: pets
kind: {kind}
description: which animal is it
data: {{source: folder, path: pets, columns: [label]}}
classes: {{column: label, {classes}}}
metrics: {{accuracy: right}}
"""
NO_TEXTS = np.empty((0, 0), "f")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pets").mkdir()
    for at in range(len(LABELS)):
        Image.new("RGB", (4, 4), (at, 0, 0)).save(tmp_path / "pets" / f"{at}.png")
    rows = (json.dumps({"file": f"{at}.png", "label": label}) for at, label in enumerate(LABELS))
    (tmp_path / "pets" / "labels.jsonl").write_text("\n".join(rows))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "names.json").write_text(json.dumps({"pets": ["Cat", "dog", "dog", "eel"], "odd": [1]}))
    (tmp_path / "lists" / "prompts.txt").write_text("a {}.\nthe {c}!\n")
    return tmp_path


def load(root, kind, classes, where=None):
    file = root / "pets.yaml"
    file.write_text(TASK.format(kind=kind, classes=classes))
    made = read(file)
    return made, made.load(Request("all", roots=(where or root,)))


LISTED = "names: {path: lists/names.json, key: pets}, templates: {path: lists/prompts.txt}, lower: true"


def test_every_class_in_every_template(root):
    made, data = load(root, "zero_shot", f"{LISTED}, unlisted: skip")
    assert data.texts == ("a cat.", "the cat!", "a dog.", "the dog!", "a eel.", "the eel!")
    assert data.ids == ("0.png", "1.png", "2.png")
    assert np.asarray(data.images[2])[0, 0, 0] == 2
    texts = np.array([[1, 0, 0], [1, 0, 0.1], [0, 1, 0], [0, 1, 0.1], [0, 0, 1], [0, 0, 1]], "f")
    images = np.array([[1, 0.1, 0], [0, 1, 0], [0, 1, 0]], "f")
    found = made.measure(data, Embeddings(images, texts), Embeddings(images, texts))["accuracy"]
    assert found.candidate.tolist() == [1, 1, 0]
    assert found.chance == pytest.approx(2 / 3)


def test_a_class_that_is_not_listed_is_refused(root):
    with pytest.raises(UsageError, match=r"not among the 3: \['owl'\]"):
        load(root, "zero_shot", LISTED)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"path": "lists/none.txt"}, EnvironmentFailure, "--data-root"),
        ({"path": "lists/names.json"}, UsageError, "no list of texts"),
        ({"path": "lists/names.json", "key": "odd"}, UsageError, "no list of texts"),
        ({"path": "lists/names.json", "key": "pet"}, UsageError, "there is odd, pets"),
        ({"path": "lists/prompts.txt", "key": "pets"}, UsageError, "no list called 'pets'"),
        ({"path": "pets/0.png"}, UsageError, "cannot be read as a list"),
    ],
)
def test_lists_that_are_none(root, asked, error, message):
    with pytest.raises(error) as caught:
        listing.read(Listing(**asked), (root,))
    assert message in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../names.json", "lists/../../names.json", "a\\b", "a\0b"])
def test_lists_lie_below_a_root(path):
    with pytest.raises(ValueError, match="below a data root"):
        Listing(path=path)


def test_a_template_without_a_place(root):
    with pytest.raises(UsageError, match="has no place for the class"):
        load(root, "zero_shot", "templates: [a thing]")


def test_names_are_a_bundled_file_or_a_list(root):
    for names in ("../secret.txt", "{key: pets}"):
        with pytest.raises(DocumentError, match="names"):
            load(root, "zero_shot", f"names: {names}")


def test_the_highest_logit(root):
    (root / "lists" / "animals.txt").write_text("Dog\nowl\ncat\neel\n")
    made, data = load(root, "classification", "names: {path: lists/animals.txt}")
    assert data.arrays["labels"].tolist() == [2, 0, 2, 1]
    right = np.array([[0, 1, 9, 2], [5, 1, 0, 0], [-4, -3, -2, -3], [0, 1, 0, 0]], "f")
    odd = np.array([[0, 9, 9, 2], [5, np.nan, 0, 0], [0, 0, np.inf, 0], [0, 1, 0, 0]], "f")
    found = made.measure(data, Embeddings(right, NO_TEXTS), Embeddings(odd, NO_TEXTS))["accuracy"]
    assert found.reference.tolist() == [1, 1, 1, 1]
    assert found.candidate.tolist() == [0, 0, 0, 1]  # a tie, NaN, infinity
    assert found.chance == 0.5
    assert found.slices == {"label": LABELS}
    with pytest.raises(CompressError, match="3 numbers an image, there are 4 classes"):
        made.measure(data, Embeddings(right[:, :3], NO_TEXTS), Embeddings(right, NO_TEXTS))


def test_the_order_of_the_classes_counts(root):
    digests = []
    for names in ("Dog\nowl\ncat", "owl\nDog\ncat"):
        (root / "lists" / "animals.txt").write_text(names)
        digests.append(load(root, "classification", "names: {path: lists/animals.txt}")[1].digest)
    assert digests[0] != digests[1]
