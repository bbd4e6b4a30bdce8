"""Sources: the same request gives the same items, slices get their share, nothing outside of a folder is read."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.core.errors import EnvironmentFailure, UsageError
from compress.core.progress import Silent
from compress.data import folder, rendered, source
from compress.data.folder import Folder
from compress.data.hub import Hub
from compress.data.items import Items, Lazy, Request
from compress.data.rendered import Rendered
from compress.recipe.sources import Columns, DataSource


def test_lazy_makes_what_is_asked_for():
    made = []
    lazy = Lazy(5, lambda at: made.append(at) or at * 10)
    assert (lazy[1], lazy[-1], list(lazy[1:3]), len(lazy)) == (10, 40, [10, 20], 5)
    assert made == [1, 4, 1, 2]
    with pytest.raises(IndexError):
        lazy[5]


def test_scenes_are_the_same_again_and_differ_by_seed_and_split():
    first, again = (rendered.load(Rendered(), Request(items=10)) for _ in range(2))
    assert first.digest == again.digest
    np.testing.assert_array_equal(first.images[7], again.images[7])
    others = [Request(items=10, seed=1), Request(items=10, split="development"), Request(items=9)]
    assert len({first.digest, *(rendered.load(Rendered(), each).digest for each in others)}) == 4
    assert len(set(first.ids)) == 10


@pytest.mark.parametrize(("per_slice", "total"), [(1, 112), (16, 112), (17, 224)])
def test_every_reading_slice_gets_its_items_in_whole_rounds(per_slice, total):
    # A round is 4 sizes x 4 conditions x 7 look-alike classes; a class has 16 places in it.
    items = rendered.load(Rendered(kinds=("reading",)), Request(items_per_slice=per_slice))
    counts = Counter((name, each) for name, column in items.columns.items() for each in column)
    assert len(items.ids) == total
    assert min(counts.values()) >= per_slice
    assert len(counts) == 4 + 3 + 7


def test_a_mixture_keeps_the_slices_that_all_have():
    assert rendered.load(Rendered(kinds=("reading", "pins")), Request(items=6)).columns.keys() == {"size"}


def test_unknown_split():
    with pytest.raises(UsageError, match=r"did you mean release"):
        rendered.load(Rendered(), Request(split="relase", items=1))


@pytest.fixture
def shelf(tmp_path):
    root = tmp_path / "shelf"
    (root / "images").mkdir(parents=True)
    rows = []
    for at in range(6):
        Image.new("RGB", (40, 40), (at, 0, 0)).save(root / "images" / f"{at}.png")
        rows.append({"file": f"images/{at}.png", "text": f"Item {at}", "more": ["A", "B"], "label": "ab"[at % 2]})
    _write(root, rows)
    return tmp_path


def _write(root, rows):
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _load(shelf, request=None, **options) -> Items:
    return folder.load(Folder(path="shelf", captions="text", **options), request or Request("all", roots=(shelf,)))


def test_a_folder(shelf):
    before = sorted(shelf.rglob("*"))
    items = _load(shelf, negatives="more", columns=("label",))
    assert items.ids[:2] == ("images/0.png", "images/1.png")
    assert (items.captions[1], items.negatives[1]) == (("Item 1",), ("A", "B"))
    assert items.columns == {"label": tuple("ababab")}
    assert items.images[3].getpixel((0, 0)) == (3, 0, 0)
    assert sorted(shelf.rglob("*")) == before, "nothing is written beside the data"


def test_options_of_a_folder(shelf):
    assert _load(shelf, restore_aspect=(3, 4)).images[0].size == (30, 40)
    assert _load(shelf, lower=True).captions[0] == ("item 0",)


def test_a_choice_is_seeded_and_in_order(shelf):
    chosen = [_load(shelf, Request("all", items=3, seed=seed, roots=(shelf,))).ids for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
    assert all(list(ids) == sorted(ids) for ids in chosen)


def test_a_changed_byte_or_label_changes_the_digest(shelf):
    digests = {_load(shelf).digest, _load(shelf, lower=True).digest}
    image = shelf / "shelf" / "images" / "2.png"
    image.write_bytes(image.read_bytes() + b"\0")
    digests.add(_load(shelf).digest)
    labels = shelf / "shelf" / "labels.jsonl"
    labels.write_text(labels.read_text().replace("Item 5", "Item 6"))
    digests.add(_load(shelf).digest)
    assert len(digests) == 4


def test_an_image_listed_twice_has_two_names(shelf):
    _write(shelf / "shelf", [{"file": "images/0.png", "text": text} for text in "xyz"])
    assert _load(shelf).ids == ("images/0.png", "images/0.png#1", "images/0.png#2")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"file": "../x.png", "text": "a"}], "outside"),
        ([{"file": "/etc/hostname", "text": "a"}], "outside"),
        ([{"file": "images/9.png", "text": "a"}], "listed but not there"),
        ([{"file": "images/0.png", "other": "a"}], "not every item has 'text'"),
    ],
)
def test_wrong_labels(shelf, rows, what):
    _write(shelf / "shelf", rows)
    with pytest.raises(UsageError, match=what):
        _load(shelf)


def test_labels_that_are_no_json(shelf):
    (shelf / "shelf" / "labels.jsonl").write_text("{]")
    with pytest.raises(UsageError, match=r"labels\.jsonl"):
        _load(shelf)


def test_a_folder_that_is_not_there_says_how_to_name_it(tmp_path):
    with pytest.raises(EnvironmentFailure, match=r"'shelf' is not there(.|\n)*--data-root"):
        _load(tmp_path)


def test_a_hub_name_needs_its_commit():
    for revision in ("main", "v1.0", "", "abc"):
        with pytest.raises(ValueError, match="revision"):
            Hub(id="owner/name", revision=revision)


def test_a_recipe_names_its_data(shelf):
    scenes = source.load_named(DataSource(source="scenes", samples=3, kind="pins"), (), Silent())
    assert [name.rsplit("-", 1)[0] for name in scenes.ids] == ["pins-calibration-0"] * 3
    asked = DataSource(source="./shelf", samples=2, columns=Columns(text="text", label="label"))
    assert len(source.load_named(asked, (shelf,), Silent()).captions) == 2
    with pytest.raises(UsageError, match="say how many"):
        source.load_named(DataSource(source="scenes"), (), Silent())


def test_a_request_survives_the_way_to_a_child():
    request = Request("development", 5, None, 3, (Path("/tmp"),))
    assert Request.of(json.loads(json.dumps(request.data()))) == request


def test_the_splits_of_a_folder_share_nothing_and_leave_nothing_out(shelf: Path) -> None:
    parts = [_load(shelf, Request(split, roots=(shelf,))).ids for split in ("calibration", "development", "release")]
    together = [name for part in parts for name in part]
    assert sorted(together) == sorted(_load(shelf).ids)
    assert folder.split_of("images/0.png") == folder.split_of("images/0.png")
    shares = [folder.split_of(f"{at}.png") for at in range(2000)]
    assert 150 < shares.count("calibration") < 250
    assert 1100 < shares.count("release") < 1300
