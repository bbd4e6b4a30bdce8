"""Recall across two models, by hand, and the views that are searched with."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import CompressError
from compress.data.items import Request
from compress.data.views import view
from compress.evals import index
from compress.evals import task as tasks
from compress.evals.ranking import hits, similarities, unit
from compress.evals.task import Embeddings


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(index, "name", lambda: index.EXACT)


@pytest.fixture(scope="module")
def data():
    return tasks.find("cross_index").load(Request(items=60))


def model(data, seed, noise=0.4):
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(len(data.texts), 16))
    images = np.empty((60, 16))
    images[data.arrays["pairs"][:, 0]] = texts[data.arrays["pairs"][:, 1]]
    told = np.random.default_rng(seed)
    images, texts = (rows + noise * told.normal(size=rows.shape) for rows in (images, texts))
    views = images + noise * told.normal(size=images.shape)
    return Embeddings(np.concatenate([images, views]).astype("f"), texts.astype("f"))


def test_every_combination_is_the_recall_of_its_queries_in_its_index(data):
    old, new = model(data, 1), model(data, 2, 0.6)
    found = tasks.find("cross_index").measure(data, old, new)
    positive = np.zeros((60, len(data.texts)), bool)
    positive[tuple(data.arrays["pairs"].T)] = True
    for name, (asked, held) in {"new_queries": (new, old), "new_index": (old, new), "both_new": (new, new)}.items():
        for kind, true in (("text", positive.T), ("image", np.eye(60, dtype=bool))):
            for k in (1, 10):
                queries = [unit(each.texts if kind == "text" else each.images[60:]) for each in (old, asked)]
                galleries = [unit(each.images[:60]) for each in (old, held)]
                before, after = (hits(similarities(q, g), true, k) for q, g in zip(queries, galleries, strict=True))
                got = found[f"{kind}_{name}_r{k}"]
                np.testing.assert_array_equal(got.reference, before)
                np.testing.assert_array_equal(got.candidate, after)
                assert found[f"{kind}_{name}_r{k}_ratio"].value == pytest.approx(after.sum() / before.sum())
                assert set(got.slices["index"]) == {"exact"}


def test_a_space_that_was_turned_is_whole_alone_and_lost_across(data):
    """What only cross-index recall sees: the candidate alone is as good as ever."""
    old = model(data, 1, 0.1)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))[0]
    new = replace(old, images=(old.images @ turn).astype("f"), texts=(old.texts @ turn).astype("f"))
    found = tasks.find("cross_index").measure(data, old, new)
    for kind in ("text", "image"):
        assert found[f"{kind}_both_new_r1_ratio"].value == 1
        assert found[f"{kind}_new_queries_r1_ratio"].value < 0.2
        assert found[f"{kind}_new_index_r1_ratio"].value < 0.2


def test_one_tower_alone_is_searched_with_views(data):
    old = replace(model(data, 1), texts=np.empty((len(data.texts), 0), "f"))
    found = tasks.find("cross_index").measure(data, old, old)
    assert {name.split("_")[0] for name in found} == {"image"}


def test_two_widths_fit_in_no_index(data):
    old = model(data, 1)
    with pytest.raises(CompressError, match="16 and 15 dimensions"):
        tasks.find("cross_index").measure(data, old, replace(old, images=old.images[:, :-1]))


def test_each_image_has_a_view_of_its_own(data):
    assert len(data.images) == len(data.ids) == 120
    assert data.ids[60] == f"view of {data.ids[0]}"
    seen = np.asarray(data.images[60], float)
    apart = [np.abs(seen - np.asarray(data.images[at], float)).mean() for at in range(60)]
    assert int(np.argmin(apart)) == 0


def test_a_view_is_the_same_each_time_and_another_for_another_seed():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    assert view(image, 3).size == (60, 40)
    assert view(image, 3).tobytes() == view(image, 3).tobytes() != view(image, 4).tobytes()
    assert view(Image.new("L", (1, 1)), 0).size == (1, 1)
