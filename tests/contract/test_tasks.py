"""Every task that ships: loads, measures what it says, and gives nothing to a model that says nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.core import names
from compress.core.errors import DocumentError
from compress.core.score import Score
from compress.data import awkward
from compress.data.items import Request
from compress.evals import index
from compress.evals import task as tasks
from compress.evals.task import Embeddings
from compress.gates.outcomes import Outcomes

TASKS = tasks.task_names()
ITEMS = 120
MORE_IS_WORSE = ("flips", "ece", "ece_drift", "confidence_drift")


PROVINCES = "皖苏浙豫粤"
TEXTS = tuple("".join(row) for row in np.random.default_rng(7).choice([*"ABCDEFGH23456789"], (ITEMS, 6)))


def rows(fields):
    """Labels of the folders that tasks name, by folder: a function of the item's number for every field."""
    return [{name: make(at) for name, make in fields.items()} for at in range(ITEMS)]


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """Stand-ins for the real data folders: the fields that the tasks name, a few images, lists of names and prompts."""
    root = tmp_path_factory.mktemp("data")
    fashion, cifar = (bundled(f"{name}_classes.txt") for name in ("fashion", "cifar10"))
    words = {"text": TEXTS.__getitem__}
    folders = {
        "fashion": {"title": lambda at: f"title {at}", "sub_category": lambda at: fashion[at % 45]},
        "flickr8k": {"captions": lambda at: [f"one {at}", f"two {at}"]},
        "iiit5k": words,
        "icdar2015_words": words,
        "sroie_lines": {**words, "receipt": lambda at: str(at // 8)},
        "plates": {"text": lambda at: f"{PROVINCES[at % 5]}{TEXTS[at]}"},
        "cifar10_test": {"label": lambda at: cifar[at % 10]},
        "imagenet_sample": {"label": lambda at: f"thing {at % 40}"},
    }
    for folder, fields in folders.items():
        (root / folder / "images").mkdir(parents=True)
        lines = []
        for at, row in enumerate(rows(fields)):
            Image.new("RGB", (8, 8), (at, 0, 0)).save(root / folder / "images" / f"{at}.png")
            lines.append(json.dumps({"file": f"images/{at}.png", **row}))
        (root / folder / "labels.jsonl").write_text("\n".join(lines))
    (root / "clip_text").mkdir()
    names_ = {"imagenet1k": [f"Thing {at}" for at in range(50)]}
    prompts = {"cifar10": ["a photo of a {c}.", "a drawing of a {c}."], "imagenet1k": ["the {c}.", "my {c}."]}
    (root / "clip_text" / "en_classnames.json").write_text(json.dumps(names_))
    (root / "clip_text" / "en_zeroshot_classification_templates.json").write_text(json.dumps(prompts))
    return (root,)


def bundled(name):
    return names.bundled("evals", "data", name).read_text().splitlines()


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """No vector database: it takes a second to start, and tests/unit/evals/test_index.py holds it against this one."""
    monkeypatch.setattr(index, "name", lambda: index.EXACT)


def good(data):
    """A model that is right: an image is at the sum of its true texts, and texts stand alone."""
    rng = np.random.default_rng(0)
    if "decoding" in data.arrays:
        return Embeddings(spoken(data, rng), np.empty((0, 0), "f"), 1.0, 1.0)
    if "classes" in data.arrays:
        logits = rng.normal(size=(len(data.ids), int(data.arrays["classes"][0]))) * 0.05
        logits[np.arange(len(logits)), data.arrays["labels"]] += 1
        return Embeddings(logits.astype("f"), np.empty((0, 0), "f"), 1.0, 1.0)
    texts = rng.normal(size=(len(data.texts), 64))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images = rng.normal(size=(len(data.ids), 64)) * 0.05
    tokens = None
    if "triples" in data.arrays:  # both views of an object are at one place
        images[data.arrays["triples"][:, 0]] = images[data.arrays["triples"][:, 1]]
    elif "items" in data.arrays:
        of_files = data.arrays["items"][:, 0] < len(awkward.IMAGES)
        for kind, told in ((of_files, images), (~of_files, texts)):
            query, same = data.arrays["items"][kind, 2:4].T
            told[query] = told[same]
    elif "candidates" in data.arrays:
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


def spoken(data, rng):
    """Every character of the truth in a step of its own, a blank after each."""
    classes, blank, classes_first = data.arrays["decoding"]
    targets = data.arrays["targets"]
    count, length = targets.shape
    path = np.full((count, 2 * length), blank)
    path[:, ::2] = np.where(targets < 0, blank, targets)
    logits = rng.normal(size=(count, classes, 2 * length)) * 0.05
    np.put_along_axis(logits, path[:, None, :], 1.0, axis=1)
    return (logits if classes_first else logits.swapaxes(1, 2)).reshape(count, -1).astype("f")


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
IMAGES_OF_AN_ITEM = {"twins": 3}
"""Of the kinds of task whose items are not one image each; `robust` has items without images."""


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
    assert {tasks.find(name).spec.kind for name in TASKS} == set(names.available(tasks.KINDS))
    assert {"reading_worn", "look_alikes", "twins", "rare", "robust", "chart_lines"} <= set(TASKS)


def test_the_data(case, roots):
    task, data, _ = case
    assert task.load(Request(_split(task), items=ITEMS, roots=roots)).digest == data.digest
    assert len(set(data.texts)) == len(data.texts)
    assert len(data.images) == len(data.ids) == len(set(data.ids))
    if task.spec.kind != "robust":
        assert len(data.ids) >= ITEMS * IMAGES_OF_AN_ITEM.get(task.spec.kind, 1)
    assert data.images[0].mode == data.images[len(data.images) - 1].mode == "RGB"
    assert all(len(column) == len(data.ids) for column in data.slices.values())


def test_what_guessing_scores_is_said(case):
    """In the words of the file and in what is measured, where there is something to guess."""
    task, data, model = case
    if task.spec.data.source == "scenes" and task.spec.kind in ("captions", "zero_shot", "twins", "robust"):
        assert "hance" in task.spec.description
        assert task.measure(data, model, model)["accuracy"].chance > 0


def test_the_metrics_are_those_of_the_file_and_a_good_model_is_good(case):
    task, data, model = case
    measured = task.measure(data, model, model)
    assert set(measured) == set(task.spec.metrics)
    for name, found in measured.items():
        if isinstance(found, Outcomes):
            assert len(found.items) == len(set(found.items)) == len(found.candidate)
            np.testing.assert_array_equal(found.reference, found.candidate if found.binary else 1.0)
            assert 0 <= found.chance <= 0.5  # of two candidates
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


@pytest.mark.parametrize("tower", ["images", "texts"])
def test_a_constant_winner_is_no_better_than_guessing(case, tower):
    """One tower answers well, the other always the same: then one label, the most frequent one, always wins."""
    task, data, model = case
    if data.points is not None:
        return  # a probe reads tokens alone: the stubs above are its constants
    constant = STUBS["constant"](_most_frequent(data, model) if tower == "images" else model.texts)
    broken = replace(model, **{tower: constant}, logit_scale=1.0, batch_cosine=1.0)
    for name, found in task.measure(data, model, broken).items():
        if isinstance(found, Outcomes) and found.binary and _uses(data, tower, name):
            spread = np.sqrt(found.chance * (1 - found.chance) / len(found.items))
            assert value(found) <= found.chance + 3 * spread


def _most_frequent(data, model):
    """Images, first one of the most frequent label."""
    labels = data.arrays.get("labels", np.zeros(len(data.ids), int))
    return np.concatenate([model.images[labels == np.bincount(labels).argmax()], model.images])[: len(data.ids)]


def _uses(data, tower, metric):
    """Whether a metric depends on a tower of the candidate alone: one side may be the reference's, or of the other."""
    if metric.startswith("drop_in") or "new_queries" in metric or "new_index" in metric:
        return False
    if metric.startswith("image_both_new") and tower == "texts":
        return False
    return tower == "images" or (bool(data.texts) and not {"triples", "items"} & set(data.arrays))


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
    if "items" in arrays:
        rows = arrays["items"].copy()
        told = rows[:, 0] >= len(awkward.IMAGES)
        rows[told, 2:] = places[rows[told, 2:]]
        arrays["items"] = rows
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


def test_every_kind_has_an_example_in_the_docs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    shown = {}
    for block in blocks:
        if found := re.search(r"^kind: (\w+)$", block, re.M):
            file = tmp_path / f"{re.search(r'^name: (.*)$', block, re.M)[1]}.yaml"
            file.write_text(block)
            shown[found[1]] = tasks.read(file)
    assert set(shown) == set(names.available(tasks.KINDS))
    assert all(f"\n## {kind}\n" in page and f"[{kind}](#{kind})" in page for kind in shown)
    assert all(f"`{name}`" in page for name in TASKS)


def test_an_unknown_kind_is_refused(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("version: 1\nname: odd\nkind: zero_shott\n")
    with pytest.raises(DocumentError, match=r"odd\.yaml:3:1 kind(.|\n)*did you mean zero_shot"):
        tasks.read(file)
