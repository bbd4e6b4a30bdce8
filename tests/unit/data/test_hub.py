"""Every kind of task runs from a data set in the form of the hub as from a folder: the source is all that differs."""

import datasets
import numpy as np
import pytest
from PIL import Image

from compress.core.errors import UsageError
from compress.data import hub
from compress.data.items import Request
from compress.evals.task import read

COMMIT = "0" * 40
WORDS = ("BOOK", "BOAT", "LOOK", "COAT")
KINDS = {
    "words": "look_alikes: 2\nwords: 2",
    "transcription": "alphabet: ABCKLOT\nblank: 7",
    "classification": "classes: {column: text, names: {path: classes.txt}}",
    "zero_shot": "classes: {column: text, names: {path: classes.txt}}",
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The same four images as a folder and as a parquet file, read without a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    shelf, hub = tmp_path / "shelf", tmp_path / "hub"
    (shelf / "images").mkdir(parents=True)
    hub.mkdir()
    images = [Image.new("RGB", (6, 4), (40 * at, 0, 0)) for at in range(len(WORDS))]
    for at, image in enumerate(images):
        image.save(shelf / "images" / f"{at}.png")
    rows = (f'{{"file": "images/{at}.png", "text": "{word}"}}' for at, word in enumerate(WORDS))
    (shelf / "labels.jsonl").write_text("\n".join(rows))
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": images, "text": list(WORDS)}, features=features)
    table.to_parquet(str(hub / "test.parquet"))
    (tmp_path / "classes.txt").write_text("\n".join(WORDS))
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_from_the_hub_is_the_task_from_a_folder(root, kind):
    loaded = []
    for data in ("{source: folder, path: shelf, columns: [text]}",
                 f"{{source: hub, id: {root / 'hub'}, revision: '{COMMIT}', columns: [text]}}"):  # fmt: skip
        file = root / "same.yaml"
        file.write_text(
            f"version: 1\nname: same\nkind: {kind}\ndescription: d\ndata: {data}\n{KINDS[kind]}\nmetrics: {{a: b}}\n"
        )
        loaded.append(read(file).load(Request("all", roots=(root,))))
    folder, hub = loaded
    assert folder.texts == hub.texts
    assert folder.arrays.keys() == hub.arrays.keys()
    for name, array in folder.arrays.items():
        np.testing.assert_array_equal(array, hub.arrays[name])
    for one, other in zip(folder.images, hub.images, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert folder.digest != hub.digest  # the revision is part of what is measured


def test_a_column_that_the_data_set_lacks(root):
    file = root / "same.yaml"
    data = f"{{source: hub, id: {root / 'hub'}, revision: '{COMMIT}', columns: [title]}}"
    file.write_text(f"version: 1\nname: same\nkind: words\ndescription: d\ndata: {data}\nmetrics: {{a: b}}\n")
    with pytest.raises(UsageError, match=r"no column \['title'\]"):
        read(file).load(Request())


def test_the_splits_of_a_policy_share_no_row(monkeypatch):
    images = [Image.new("RGB", (2, 2), (at, 0, 0)) for at in range(120)]
    features = datasets.Features({"image": datasets.Image()})
    monkeypatch.setattr(hub, "_table", lambda _: datasets.Dataset.from_dict({"image": images}, features=features))
    spec = hub.Hub(id="owner/name", revision=COMMIT)
    found = {split: hub.load(spec, Request(split)).ids for split in ("calibration", "development", "release", "all")}
    parts = [found[split] for split in ("calibration", "development", "release")]
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(found["all"])
    assert len(found["all"]) == 120
    assert len(hub.load(spec, Request("release", 5)).ids) == 5
