"""The frozen probe: learned once from the reference, applied unchanged, against a ridge regression written out."""

from dataclasses import replace

import numpy as np
import pytest

from compress.core.errors import CompressError, UsageError
from compress.data.items import Request
from compress.data.scenes.codes import ALPHABET
from compress.data.tokens import FULL
from compress.evals import task as tasks
from compress.evals.task import Embeddings, TaskData
from compress.evals.tasks import frozen_probe

WIDTH = 12


def model(tokens, grid=8):
    empty = np.empty((0, 0), "f")
    return Embeddings(empty, empty, tokens=np.asarray(tokens, "f"), grid=grid)


def drawn(count=400, classes=5, seed=0, noise=0.6):
    """One character to an image, half of the images to learn from, tokens around one centre a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    tokens = rng.normal(size=(classes, WIDTH))[labels] + noise * rng.normal(size=(count, WIDTH))
    points = np.column_stack([np.arange(count), np.full((count, 2), FULL // 2)])
    arrays = {"labels": labels, "learned": (np.arange(count) >= count // 2).astype(np.int64)}
    ids = tuple(f"image-{at}" for at in range(count))
    size = tuple("small" if at % 2 else "large" for at in range(count))
    return TaskData((), (), ids, "", arrays, {"size": size}, points), tokens.astype("f")


def test_it_is_the_ridge_regression_on_minus_one_and_one():
    data, tokens = drawn()
    got = frozen_probe.measure(data, model(tokens), model(tokens))["accuracy"]
    learned, labels = data.arrays["learned"].astype(bool), data.arrays["labels"]
    rows = (tokens - tokens[learned].mean(axis=0)) / tokens[learned].std(axis=0)
    targets = 2.0 * np.eye(5)[labels[learned]] - 1
    seen = rows[learned].astype(float)
    weights = np.linalg.solve(seen.T @ seen + np.eye(WIDTH), seen.T @ (targets - targets.mean(axis=0)))
    best = (rows[~learned] @ weights + targets.mean(axis=0)).argmax(axis=1)
    np.testing.assert_array_equal(got.reference, best == labels[~learned])
    assert 0.5 < got.reference.mean() < 1
    assert got.items == tuple(f"image-{at} {at}" for at in range(200))
    assert got.clusters == data.ids[:200]
    assert got.slices["size"] == data.slices["size"][:200]
    assert got.chance == np.bincount(labels[:200]).max() / 200


def test_the_probe_is_not_learned_again():
    """Turned tokens hold as much as before, and a frozen reader cannot use them."""
    data, tokens = drawn(noise=0.2)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    found = frozen_probe.measure(data, model(tokens), model(tokens @ turn))
    assert found["accuracy"].reference.mean() > 0.95
    assert found["accuracy"].candidate.mean() < 0.6
    itself = frozen_probe.measure(data, model(tokens @ turn), model(tokens @ turn))["accuracy"]
    assert itself.reference.mean() > 0.95
    assert found["token_cosine"].candidate.mean() < 0.7


def test_a_token_that_is_not_finite_is_wrong_alone():
    data, tokens = drawn(noise=0.2)
    broken = tokens.copy()
    broken[3, 4] = np.nan
    found = frozen_probe.measure(data, model(tokens), model(broken))
    assert found["accuracy"].candidate[3] == 0
    np.testing.assert_array_equal(np.delete(found["accuracy"].candidate, 3), np.delete(found["accuracy"].reference, 3))
    assert found["token_cosine"].candidate[3] == -1


def test_characters_that_share_a_patch_are_left_out():
    """By hand: patches of a grid of 4 are 2500 wide, so 100 and 2400 share one; of a grid of 8 they do not."""
    points = np.array([[0, 100, 50], [0, 2400, 50], [0, 2600, 50], [1, 100, 50]])
    assert frozen_probe._alone(points, 4).tolist() == [False, False, True, True]
    assert frozen_probe._alone(points, 8).tolist() == [True, True, True, True]


def test_another_grid_or_width_is_no_replacement():
    data, tokens = drawn()
    with pytest.raises(CompressError, match="8 a side of width 12, and 4 of 12"):
        frozen_probe.measure(data, model(tokens), model(tokens, grid=4))
    with pytest.raises(CompressError, match="width 12, and 8 of 11"):
        frozen_probe.measure(data, model(tokens), model(tokens[:, :-1]))
    with pytest.raises(CompressError, match="no patch tokens"):
        frozen_probe.measure(data, model(tokens), replace(model(tokens), tokens=None))


def test_the_scenes_and_their_points():
    task = tasks.find("frozen_probe")
    data = task.load(Request(items=20))
    assert [name.split("-")[1] for name in data.ids] == ["release"] * 20 + ["development"] * 20
    assert data.arrays["learned"].tolist() == [int(image >= 20) for image in data.points[:, 0]]
    assert ((data.points[:, 1:] >= 0) & (data.points[:, 1:] < FULL)).all()
    told = tasks.find("reading").load(Request(items=20))
    for at in range(20):
        code = told.texts[told.arrays["candidates"][at, 0]].removeprefix("the text ")
        here = data.points[:, 0] == at
        assert "".join(ALPHABET[label] for label in data.arrays["labels"][here]) == code
        assert (np.diff(data.points[here, 1]) > 0).all()  # read from left to right
    assert data.images[0].tobytes() == told.images[0].tobytes()


def test_what_cannot_be_asked():
    task = tasks.find("frozen_probe")
    with pytest.raises(UsageError, match="cannot be measured on it"):
        task.load(Request("development", items=5))
    with pytest.raises(UsageError, match="items_per_slice"):
        task.load(Request(items_per_slice=5))
