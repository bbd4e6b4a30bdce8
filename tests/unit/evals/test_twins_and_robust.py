"""Kinds of tasks that need no right text: twins, and awkward files and texts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import UsageError
from compress.data import awkward, opening
from compress.data.items import Request
from compress.evals import task as tasks
from compress.evals.ranking import nearer, unit
from compress.evals.task import Embeddings, TaskData
from compress.evals.tasks import robust, twins
from compress.evals.worker import _batches


def rows(*values):
    return unit(np.array(values, float))


def test_nearer():
    query, same, other = rows((1, 0), (1, 0), (1, 0)), rows((1, 0.1), (1, 1), (1, 0)), rows((1, 1), (1, 0.1), (1, 0))
    assert nearer(query, same, other).tolist() == [1, 0, 0]  # the last is a tie
    for broken in (0.0, np.nan, np.inf):
        bad = rows((broken, broken))
        one, two = rows((1, 0)), rows((0, 1))
        assert not nearer(bad, one, two).any()
        assert not nearer(one, bad, one).any()
        if broken != 0:
            assert not nearer(one, one, bad).any()


def triples(*images):
    ids = tuple(map(str, range(len(images))))
    places = np.arange(len(ids)).reshape(-1, 3)
    data = TaskData((), (), ids, "", {"triples": places}, {"kind": tuple("aaabbb")})
    return data, Embeddings(np.array(images, "f"), np.empty((0, 0), "f"))


def test_twins_are_counted_by_item_with_their_slice():
    data, model = triples((1, 0), (1, 0.1), (0, 1), (1, 0), (0, 1), (1, 0.1))
    found = twins.measure(data, model, model)["accuracy"]
    assert found.items == ("0", "3")
    assert found.candidate.tolist() == [1, 0]
    assert found.slices == {"kind": ("a", "b")}
    assert found.chance == 0.5


@pytest.fixture
def scans(tmp_path):
    """A folder of look-alike scans, as somebody may have one."""

    def make(parts):
        lines = []
        for at, part in enumerate(parts):
            Image.new("RGB", (4, 4), (at, 0, 0)).save(tmp_path / f"{at}.png")
            lines.append(json.dumps({"file": f"{at}.png", "part": part, "scanner": "flat"}))
        (tmp_path / "labels.jsonl").write_text("\n".join(lines))
        file = tmp_path / "scans.yaml"
        file.write_text(
            "version: 1\nname: scans\nkind: twins\ndescription: two scans\n"
            f"data: {{source: folder, path: {tmp_path}, columns: [part, scanner]}}\nmetrics: {{accuracy: share}}\n"
        )
        return tasks.read(file).load(Request("all"))

    return make


def test_twins_from_a_folder(scans):
    data = scans(twins.PARTS * 2)
    assert data.arrays["triples"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert set(data.slices) == {"scanner"}
    assert data.texts == ()


@pytest.mark.parametrize("parts", [("query", "same"), ("query", "twin", "same"), ("query", "same", "twin", "query")])
def test_threes_that_are_none(scans, parts):
    with pytest.raises(UsageError, match="come in threes"):
        scans(parts)


def test_items_count_threes():
    task = tasks.find("twins")
    assert len(task.load(Request("release", 7)).ids) == 21
    per_slice = task.load(Request("release", None, 4))
    assert len(per_slice.arrays["triples"]) == 20
    assert len(per_slice.slices["difference"]) == 60


def test_a_task_without_texts_is_encoded():
    channel = SimpleNamespace(done=lambda _: None)
    assert _batches(lambda _: np.ones((1, 2), "f"), (), 32, channel).shape == (0, 0)


# ---------------------------------------------------------------- robust


def encoded(data, seed=0):
    """Pixels and characters as they are, projected: a model that tells everything apart."""
    rng = np.random.default_rng(seed)
    pixels = np.stack([np.asarray(image.resize((8, 8)), np.float32).ravel() for image in data.images])
    chars = np.zeros((len(data.texts), 64), np.float32)
    for at, text in enumerate(data.texts):
        for char in "".join(text.split()):
            chars[at, ord(char) % 61] += 1
        chars[at, 62] = 1
    return Embeddings(pixels @ rng.normal(size=(192, 32)).astype("f"), chars)


@pytest.fixture(scope="module")
def task():
    return tasks.find("robust")


@pytest.fixture(scope="module")
def data(task):
    return task.load(Request("release", 2 * len(robust.CASES)))


def by_case(found):
    wrong = found.candidate < 0.5
    return {case for case, bad in zip(found.slices["case"], wrong, strict=True) if bad}


def test_the_product_is_sound(task, data):
    model = encoded(data)
    found = task.measure(data, model, model)
    assert by_case(found["accuracy"]) == set()
    assert set(found["accuracy"].slices["case"]) == {*awkward.IMAGES, *awkward.TEXTS}
    assert found["min_cosine"].value == pytest.approx(1)
    assert set(found["cosine"].slices["case"]) == {*robust.CASES, "plain"}


def test_what_pillow_alone_does_is_wrong(task, data, monkeypatch):
    monkeypatch.setattr(opening, "rgb", lambda image: image.convert("RGB"))
    naive = task.load(Request("release", 2 * len(robust.CASES)))
    assert naive.ids == data.ids
    found = task.measure(naive, encoded(data), encoded(naive))
    assert by_case(found["accuracy"]) == {"grey_alpha", "rgba", "palette_alpha", "sixteen_bit", "exif_turned"}


def test_a_file_that_is_not_refused_is_wrong(task, monkeypatch):
    real = opening.read

    def lenient(file, where):
        try:
            return real(file, where)
        except UsageError:
            return Image.new("RGB", (64, 64))

    monkeypatch.setattr(opening, "read", lenient)
    found = task.load(Request("release", len(robust.CASES)))
    assert by_case(task.measure(found, encoded(found), encoded(found))["accuracy"]) == {
        "truncated", "zero_bytes", "no_image", "oversized",
    }  # fmt: skip


@pytest.mark.parametrize("case", ["grey", "emoji"])
def test_one_broken_embedding_is_one_wrong_item_and_the_lowest_cosine(task, data, case):
    model = encoded(data)
    row = next(row for row in data.arrays["items"] if robust.CASES[row[0]] == case)
    images, texts = model.images.copy(), model.texts.copy()
    (images if case in awkward.IMAGES else texts)[row[2]] = np.nan
    found = task.measure(data, model, Embeddings(images, texts))
    assert by_case(found["accuracy"]) == {case}
    assert found["accuracy"].candidate.sum() == len(robust.CASES) * 2 - 1
    assert found["min_cosine"].value == -1
    lowest = found["cosine"].candidate.argmin()
    assert found["cosine"].slices["case"][lowest] == case


def test_another_embedding_for_the_same_picture_is_wrong(task, data):
    """A tenth of noise leaves the nearer one the nearer one, and is found all the same."""
    model = encoded(data)
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, model.images.shape) * np.abs(model.images).mean()
    found = task.measure(data, model, Embeddings((model.images + noise).astype("f"), model.texts))
    assert by_case(found["accuracy"]) == set(awkward.IMAGES)
