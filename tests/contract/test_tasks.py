"""Every task that ships: loads, measures what it says, and gives nothing to a model that says nothing."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compress.core import names
from compress.core.errors import DocumentError
from compress.core.score import Score
from compress.data.items import Request
from compress.evals import index
from compress.evals import task as tasks
from compress.evals.task import Embeddings
from compress.gates.outcomes import Outcomes

TASKS = tasks.task_names()
ITEMS = 120
MORE_IS_WORSE = ("flips", "ece", "ece_drift", "confidence_drift")


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """Stand-ins for the real data folders: the fields that the tasks name, a few images."""
    root = tmp_path_factory.mktemp("data")
    classes = names.bundled("evals", "data", "fashion_classes.txt").read_text().splitlines()
    for folder, fields in (("fashion", ("title", "sub_category")), ("flickr8k", ("captions",))):
        (root / folder / "images").mkdir(parents=True)
        lines = []
        for at in range(ITEMS):
            Image.new("RGB", (8, 8), (at, 0, 0)).save(root / folder / "images" / f"{at}.png")
            told = {"title": f"title {at}", "sub_category": classes[at % 45], "captions": [f"one {at}", f"two {at}"]}
            row = {"file": f"images/{at}.png", **{name: told[name] for name in fields}}
            lines.append(repr(row).replace("'", '"'))
        (root / folder / "labels.jsonl").write_text("\n".join(lines))
    return (root,)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """No vector database: it takes a second to start, and tests/unit/evals/test_index.py holds it against this one."""
    monkeypatch.setattr(index, "name", lambda: index.EXACT)


def good(data):
    """A model that is right: an image is at the sum of its true texts, and texts stand alone."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(len(data.texts), 64))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images = rng.normal(size=(len(data.ids), 64)) * 0.05
    tokens = None
    if "candidates" in data.arrays:
        images += texts[data.arrays["candidates"][:, 0]]
    elif "prompts" in data.arrays:
        images += texts[data.arrays["prompts"][data.arrays["labels"]]].sum(axis=1)
    elif "pairs" in data.arrays:
        np.add.at(images, data.arrays["pairs"][:, 0], texts[data.arrays["pairs"][:, 1]])
    if "gallery" in data.arrays:  # an image of its own for each view
        number = int(data.arrays["gallery"][0])
        images[:number] += rng.normal(size=(number, 64)) * 0.03
        images[number:] = images[:number] + rng.normal(size=(number, 64)) * 0.005
    if data.points is not None:
        tokens = rng.normal(size=(99, 64))[data.arrays["labels"]] + 0.05 * rng.normal(size=(len(data.points), 64))
        tokens = tokens.astype("f")
    return Embeddings(images.astype("f"), texts.astype("f"), 100.0, 1.0, tokens, 8)


def changed(model, change):
    """The same model with something done to all that it gives."""
    tokens = None if model.tokens is None else change(model.tokens)
    return Embeddings(change(model.images), change(model.texts), model.logit_scale, -1.0, tokens, model.grid)


def some_nan(array):
    rows = np.random.default_rng(1).permutation(len(array))[: max(1, round(len(array) * 0.02))]
    changed = array.copy()
    changed[rows] = np.nan
    return changed


STUBS = {
    "nan": lambda array: np.full_like(array, np.nan),
    "zeros": np.zeros_like,
    "constant": lambda array: np.repeat(array[:1], len(array), axis=0),
    "some nan": some_nan,
}


def value(measured):
    return float(measured.candidate.mean()) if isinstance(measured, Outcomes) else measured.value


@pytest.fixture(params=TASKS, scope="module")
def case(request, roots):
    task = tasks.find(request.param)
    data = task.load(Request(_split(task), items=ITEMS, roots=roots))
    return task, data, good(data)


def _split(task: tasks.Task) -> str:
    """Scenes belong to a split; of a small folder every row is wanted."""
    return "release" if task.spec.data.source == "scenes" else "all"


def test_there_are_tasks():
    assert {"reading", "zero_shot", "relations", "pins", "charts", "retrieval", "parity"} <= set(TASKS)


def test_the_data(case, roots):
    task, data, _ = case
    assert task.load(Request(_split(task), items=ITEMS, roots=roots)).digest == data.digest
    assert len(set(data.texts)) == len(data.texts)
    assert len(data.images) == len(data.ids) == len(set(data.ids)) >= ITEMS
    assert data.images[0].mode == data.images[len(data.images) - 1].mode == "RGB"
    assert all(len(column) == len(data.ids) for column in data.slices.values())


def test_the_metrics_are_those_of_the_file_and_a_good_model_is_good(case):
    task, data, model = case
    measured = task.measure(data, model, model)
    assert set(measured) == set(task.spec.metrics)
    for name, found in measured.items():
        if isinstance(found, Outcomes):
            assert len(found.items) == len(set(found.items)) == len(found.candidate)
            np.testing.assert_array_equal(found.reference, found.candidate if found.binary else 1.0)
            assert 0 <= found.chance < 0.5
        assert value(found) == pytest.approx(0 if name in MORE_IS_WORSE else 1, abs=0.05)


@pytest.mark.parametrize("stub", STUBS)
def test_a_model_that_says_nothing_gets_nothing(case, stub):
    task, data, model = case
    broken = changed(model, STUBS[stub])
    before, after = task.measure(data, model, model), task.measure(data, model, broken)
    assert set(after) == set(before)
    for name, found in after.items():
        got, had = value(found), value(before[name])
        assert np.isfinite(got)
        if name in MORE_IS_WORSE:
            assert got > had if stub == "some nan" else got > 0.9
        elif stub == "some nan":
            assert got < had
        elif isinstance(found, Outcomes) and found.binary:
            assert got <= found.chance
            np.testing.assert_array_equal(found.reference, before[name].reference)
        else:
            assert got < 0.5


def test_order_of_the_texts_changes_nothing(case):
    task, data, model = case
    order = np.random.default_rng(3).permutation(len(data.texts))
    places = np.argsort(order)
    arrays = dict(data.arrays)
    for name in ("candidates", "prompts"):
        if name in arrays:
            arrays[name] = np.where(arrays[name] < 0, -1, places[arrays[name]])
    if "pairs" in arrays:
        arrays["pairs"] = np.stack([arrays["pairs"][:, 0], places[arrays["pairs"][:, 1]]], axis=1)
    mixed = replace(data, texts=tuple(data.texts[at] for at in order), arrays=arrays)
    rng = np.random.default_rng(4)
    other = changed(model, lambda array: array + rng.normal(0, 0.1, array.shape).astype("f"))
    turned = [replace(each, texts=each.texts[order]) for each in (model, other)]
    plain, again = task.measure(data, model, other), task.measure(mixed, *turned)
    for name, found in plain.items():
        if not isinstance(found, Score) or name != "p1_cosine":
            assert value(found) == pytest.approx(value(again[name]), abs=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_an_unknown_key_is_refused_with_its_line(name, tmp_path):
    text = tasks.find(name).file.read_text()
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    assert tasks.read(file).spec == tasks.find(name).spec
    file.write_text(text + "surprise: 1\n")
    with pytest.raises(DocumentError, match=rf"{name}\.yaml:{text.count(chr(10)) + 1}:1 surprise"):
        tasks.read(file)


def test_an_unknown_kind_is_refused(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("version: 1\nname: odd\nkind: zero_shott\n")
    with pytest.raises(DocumentError, match=r"odd\.yaml:3:1 kind(.|\n)*did you mean zero_shot"):
        tasks.read(file)
