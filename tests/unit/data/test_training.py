"""Training sets: the same batches for a seed and epoch however they are made, and errors that say what to do."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from compress.core.errors import EnvironmentFailure, UsageError
from compress.data import rendered, runtime
from compress.data.agreement import require_same_tokens, require_vocabulary
from compress.data.items import Request
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, TowerFile, Towers
from compress.data.stored import stored
from compress.data.training import Share, TrainingSet
from compress.recipe.sources import Columns, DataSource
from compress.recipe.training import Feeding

IMAGE = TowerFile(file="onnx/v.onnx", input="pixel_values", output="y")
TEXT = TowerFile(file="onnx/t.onnx", input="input_ids", output="y", mask="attention_mask", eos="eos")


@pytest.fixture
def model(tmp_path):
    """A folder that says how inputs are made: pixels unchanged in 4 x 4, bytes as tokens."""
    return _model(tmp_path / "model")


def _model(folder, towers=None, length=6):
    folder.mkdir()
    how = Plain(
        image=PlainImage(size=(4, 4), divide=1.0), text=PlainText(tokenizer="bytes", length=length, start=2, end=3)
    )
    made = Runtime(target="t", towers=towers or Towers(vision=IMAGE, text=TEXT), preprocess=how, logit_scale=1.0)
    runtime.write(folder, made)
    return folder


def _png(value, broken=False):
    held = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(held, "PNG")
    return held.getvalue()[: 40 if broken else None]


@pytest.fixture
def shelf(tmp_path):
    """A labelled folder of ten images, whose red is their number, captioned by it."""
    return _shelf(tmp_path)


def _shelf(tmp_path, broken=(), name="shelf"):
    root = tmp_path / name
    root.mkdir()
    for at in range(10):
        (root / f"{at}.png").write_bytes(_png(at, at in broken))
    rows = [{"file": f"{at}.png", "text": f"n{at}"} for at in range(10)]
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _shards(tmp_path, members):
    root = tmp_path / "shards"
    root.mkdir()
    for shard in range(2):
        with tarfile.open(root / f"part-{shard}.tar", "w") as tar:
            for at in range(5 * shard, 5 * shard + 5):
                for ending, content in members(at).items():
                    told = tarfile.TarInfo(f"sample{at:03}.{ending}")
                    told.size = len(content)
                    tar.addfile(told, io.BytesIO(content))
    return root


def _table(tmp_path, **columns):
    root = tmp_path / "table"
    root.mkdir()
    parquet.write_table(pyarrow.table(columns), root / "part.parquet")
    return root


def training(folder, model, feeding=None, seed=0, **source):
    """A set without rendered text and workers, unless `feeding` says so."""
    told = Feeding(**{"rendered": 0.0, "workers": 0, **(feeding or {})})
    columns = {"columns": Columns(**source.pop("columns"))} if "columns" in source else {}
    asked = DataSource(source=str(folder), feeding=told, **columns, **source)
    return TrainingSet(stored(asked, (Path(),)), told, model, seed)


def red(batch):
    """The number of each sample, read from its pixels."""
    return batch.feeds["vision"]["pixel_values"][:, 0, 0, 0].astype(int).tolist()


def reds(batches):
    """The numbers of all samples of batches, in their order."""
    return [number for batch in batches for number in red(batch)]


def text(ids):
    """What byte tokens say."""
    return bytes(ids[ids > 3].tolist()).decode()


def epoch(made, number=0, batch=4, **options):
    return list(made.batches(number, batch, **options))


def test_each_sample_once_an_epoch_in_an_order_of_its_own(shelf, model):
    made = training(shelf, model)
    first, second = (reds(epoch(made, at, 5)) for at in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == reds(epoch(training(shelf, model), 0, 5))
    assert first != reds(epoch(training(shelf, model, seed=1), 0, 5))
    assert made.steps(5) == 2
    assert len(epoch(made, 0, 4)) == made.steps(4) == 2  # two samples are left out
    assert len(made) == made.keys == 10


def test_pixels_tokens_and_the_place_of_the_last_token(shelf, model):
    (batch,) = epoch(training(shelf, model, columns={"text": "text"}), 0, 10)
    assert batch.feeds["vision"]["pixel_values"].shape == (10, 3, 4, 4)
    assert batch.rows["vision"].tolist() == batch.rows["text"].tolist() == list(range(10))
    for number, ids in zip(red(batch), batch.feeds["text"]["input_ids"], strict=True):
        assert ids.tolist() == [2, ord("n"), ord(str(number)), 3, 0, 0]
    assert batch.feeds["text"]["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0]
    assert batch.feeds["text"]["eos"].tolist() == [3] * 10
    assert batch.keys.tolist() == red(batch)


def test_processes_share_each_batch(shelf, model):
    made = training(shelf, model, {"rendered": 0.5})
    whole = epoch(made, 3, 6)
    parts = [epoch(made, 3, 6, share=Share(rank, 3)) for rank in range(3)]
    for step, batch in enumerate(whole):
        joined = sorted(int(key) for each in parts for key in each[step].keys)
        assert joined == sorted(batch.keys.tolist())
        assert all(len(each[step].keys) == 2 for each in parts)
        assert all((each[step].keys < made.pool).sum() == 1 for each in parts)  # one rendered text in each process
    with pytest.raises(UsageError, match="cannot be divided among 4 processes"):
        epoch(made, 0, 6, share=Share(0, 4))


def test_a_resumed_epoch_goes_on_where_it_was(shelf, model):
    made = training(shelf, model, {"rendered": 0.25, "augment": "crop"})
    whole, rest = epoch(made, 2, 4), epoch(made, 2, 4, start=1)
    assert [batch.keys.tolist() for batch in rest] == [batch.keys.tolist() for batch in whole[1:]]
    np.testing.assert_array_equal(rest[0].feeds["vision"]["pixel_values"], whole[1].feeds["vision"]["pixel_values"])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_rendered_text_has_its_share_of_every_batch(shelf, model, share):
    made = training(shelf, model, {"rendered": share})
    for batch in epoch(made, 0, 8):
        assert (batch.keys < made.pool).sum() == min(7, round(8 * share))
    # 10 own samples beside p rendered ones: p / (p + 10) is the share
    assert made.pool == {0.0: 0, 0.25: 3, 0.5: 10, 0.9: 90}[share]


@pytest.mark.parametrize("sizes", [("6-8",), ("6-8", "19-24"), ("6-8", "9-12", "13-18", "19-24")])
def test_rendered_text_has_the_sizes_asked_for(shelf, model, sizes):
    """In turns, each text another one, with all its fonts, contrasts and look-alikes; all sizes are the default."""
    made = training(shelf, model, {"rendered": 0.9, "rendered_px": sizes})
    asked = [made._rendered(at, 0).raw.image for at in range(made.pool)]
    scenes = [rendered.scene(each.kind, each.split, each.seed, each.index) for each in asked]
    assert [each.slices["size"] for each in scenes] == [sizes[at % len(sizes)] for at in range(made.pool)]
    assert len({each.index for each in asked}) == made.pool
    assert {each.slices["condition"] for each in scenes} == {"plain", "low_contrast", "rotated"}
    every = training(shelf, model, {"rendered": 0.9})
    assert (made.digest == every.digest) == (len(sizes) == 4)


@pytest.mark.parametrize("sizes", [["6-8", "6-8"], [], ["7"]])
def test_sizes_of_rendered_text_that_are_refused(sizes):
    with pytest.raises(ValueError, match="rendered_px"):
        Feeding.model_validate({"rendered_px": sizes})
    assert Feeding.model_validate({"rendered_px": ["19-24", "6-8"]}).rendered_px == ("19-24", "6-8")


def test_rendered_text_shares_no_string_with_what_is_measured(tmp_path):
    model = _model(tmp_path / "model", length=40)
    made = training("scenes", model, {"rendered": 0.5}, samples=300, kind="reading")
    texts = {text(ids) for batch in epoch(made, 0, 300) for ids in batch.feeds["text"]["input_ids"]}
    assert len(texts) > 250
    measured = rendered.load(rendered.Rendered(kinds=("reading",)), Request("release", 300))
    assert not texts & {each for told in (*measured.captions, *measured.negatives) for each in told}


def test_the_same_key_is_the_same_input_in_every_epoch(shelf, model):
    made = training(shelf, model, {"augment": "photo", "views": 2, "rendered": 0.25})
    seen = {}
    for number in range(4):
        for batch in epoch(made, number, 4):
            for key, pixels in zip(batch.keys.tolist(), batch.feeds["vision"]["pixel_values"], strict=True):
                assert key % 2 == number % 2
                assert key < made.keys
                np.testing.assert_array_equal(seen.setdefault(key, pixels), pixels)
    own = [key for key in seen if key >= 2 * made.pool]
    assert any((seen[key] != seen[key + 1]).any() for key in own if key % 2 == 0 and key + 1 in seen)


def test_workers_make_the_same_batches(tmp_path, model):
    shelf = _shelf(tmp_path, broken=(4,))
    here = training(shelf, model, {"augment": "crop"}, columns={"text": "text"})
    there = training(shelf, model, {"augment": "crop", "workers": 1}, columns={"text": "text"})
    for number in range(2):
        pairs = zip(epoch(here, number), epoch(there, number), strict=True)
        for one, other in pairs:
            assert one.keys.tolist() == other.keys.tolist()
            for kind, feed in one.feeds.items():
                for name, values in feed.items():
                    np.testing.assert_array_equal(values, other.feeds[kind][name])
    assert len(there.broken) == 1
    for file in shelf.glob("*.png"):
        file.unlink()
    with pytest.raises(UsageError, match="no image of a batch can be read"):  # as where no worker stands between
        epoch(there)
    there.close()


def test_broken_images_are_listed_and_replaced_up_to_a_limit(tmp_path, model):
    shelf = _shelf(tmp_path, broken=(3, 7))
    made = training(shelf, model, {"broken": 2})
    batches = epoch(made, 0, 5)
    assert [len(batch.keys) for batch in batches] == [5, 5]
    assert set(reds(batches)) == set(range(10)) - {3, 7}
    assert all(key == number for batch in batches for key, number in zip(batch.keys, red(batch), strict=True))
    assert {name.rsplit("/", 1)[-1] for name in made.broken} == {"3.png", "7.png"}
    epoch(made, 1, 5)  # the same two again are not counted twice
    with pytest.raises(UsageError, match=r"2 images cannot be read, and 1 may be:(.|\n)*3\.png"):
        epoch(training(shelf, model, {"broken": 1}), 0, 5)


def test_images_only_and_captions_only(shelf, model):
    (images,) = epoch(training(shelf, model), 0, 10)
    assert images.feeds.keys() == images.rows.keys() == {"vision"}
    made = training(shelf, model, {"use": "captions", "rendered": 0.5}, columns={"text": "text"})
    captions = epoch(made, 0, 10)
    assert all(batch.feeds.keys() == {"text"} for batch in captions)
    told = {text(ids) for batch in captions for ids in batch.feeds["text"]["input_ids"]}
    assert {f"n{at}" for at in range(10)} < told  # and those of rendered texts
    (shelf / "labels.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert len(training(shelf, model, {"use": "captions"}, columns={"text": "text"})) == 2


def test_what_the_data_or_the_model_do_not_have(shelf, model, tmp_path):
    with pytest.raises(UsageError, match="the data have images and no pairs"):
        training(shelf, model, {"use": "pairs"})
    blind = _model(tmp_path / "blind", Towers(text=TEXT))
    with pytest.raises(UsageError, match="the model has no vision tower, which images are for"):
        training(shelf, blind)
    with pytest.raises(UsageError, match="not every item has 'caption'"):
        training(shelf, model, columns={"text": "caption"})
    with pytest.raises(EnvironmentFailure, match="is not there"):
        training(tmp_path / "nowhere", model)
    with pytest.raises(UsageError, match="say how many `samples`"):
        training("scenes", model)
    with pytest.raises(UsageError, match=r"holds 0 of labels\.jsonl, \*\.tar, \*\.parquet"):
        training(model, model)
    (shelf / "labels.jsonl").write_text("")
    with pytest.raises(UsageError):
        training(shelf, model)


def _member(at):
    return {"png": _png(at), "txt": f"n{at}".encode(), "json": json.dumps({"caption": f"j{at}"}).encode()}


@pytest.mark.parametrize("streaming", [False, True])
def test_shards(tmp_path, model, streaming):
    root = _shards(tmp_path, _member)
    made = training(root, model, {"streaming": streaming})
    batches = epoch(made, 0, 5)
    assert sorted(reds(batches)) == list(range(10))
    for batch in batches:
        assert [chr(ids[2]) for ids in batch.feeds["text"]["input_ids"]] == [str(number) for number in red(batch)]
        assert batch.keys.tolist() == red(batch)
    assert reds(epoch(made, 1, 5)) != reds(batches)
    assert (made.keys, made.steps(5)) == ((None, None) if streaming else (10, 2))
    inside = training(root, model, {"streaming": streaming}, columns={"text": "json.caption"}, samples=3)
    (batch,) = epoch(inside, 0, 3)
    assert sorted(red(batch)) == [0, 1, 2]
    assert {chr(ids[1]) for ids in batch.feeds["text"]["input_ids"]} == {"j"}


def test_a_stream_is_shared_and_resumed_like_a_set(tmp_path, model):
    made = training(_shards(tmp_path, _member), model, {"streaming": True, "rendered": 0.25})
    whole = epoch(made, 1, 4)
    assert len(whole) == 3  # three own samples in each batch, one left out
    assert len({int(key) for batch in whole for key in batch.keys}) == 12
    halves = [epoch(made, 1, 4, share=Share(rank, 2), start=1) for rank in range(2)]
    for step, batch in enumerate(whole[1:]):
        assert sorted(np.concatenate([half[step].keys for half in halves])) == sorted(batch.keys)


def test_a_shard_that_is_cut_off(tmp_path, model):
    root = _shards(tmp_path, _member)
    content = (root / "part-1.tar").read_bytes()
    (root / "part-1.tar").write_bytes(content[:700])
    with pytest.raises(UsageError, match="cannot be read"):
        training(root, model)
    (root / "part-0.tar").write_bytes(b"no tar" * 100)
    with pytest.raises(UsageError, match="cannot be read"):
        training(root, model, {"streaming": True})


def test_parquet(tmp_path, model):
    root = _table(tmp_path, image=[_png(at) for at in range(6)], caption=[f"n{at}" for at in range(6)])
    (batch,) = epoch(training(root, model), 0, 6)
    assert sorted(red(batch)) == list(range(6))
    assert batch.rows["text"].tolist() == list(range(6))


def test_rows_without_an_image_or_a_caption(tmp_path, model):
    root = _table(tmp_path, image=[_png(0), None, _png(2)], caption=["a", "b", ""])
    made = training(root, model, {"broken": 1})
    (batch,) = epoch(made, 0, 3)
    assert len(made.broken) == 1
    assert len(batch.rows["vision"]) == 3
    assert len(batch.rows["text"]) in {1, 2}  # what stands for the broken one has a caption or none
    assert batch.feeds["text"]["input_ids"].shape[0] == len(batch.rows["text"])


def test_tables_whose_columns_are_others(tmp_path, model):
    root = _table(tmp_path, picture=["a.png"], note=[3])
    with pytest.raises(UsageError, match="no column looks like images or captions"):
        training(root, model)
    with pytest.raises(UsageError, match="have no column 'photo'"):
        training(root, model, columns={"image": "photo"})
    with pytest.raises(UsageError, match="'picture' holds no images"):
        training(root, model, columns={"image": "picture"})
    with pytest.raises(UsageError, match="'note' holds no texts"):
        training(root, model, columns={"text": "note"})


def test_the_digest_covers_what_decides_a_key(shelf, model, tmp_path):
    digests = {
        training(shelf, model).digest,
        training(shelf, model, seed=1).digest,
        training(shelf, model, {"augment": "crop"}).digest,
        training(shelf, model, {"views": 2}).digest,
        training(shelf, model, {"rendered": 0.25}).digest,
        training(shelf, model, columns={"text": "text"}).digest,
        training(shelf, _model(tmp_path / "longer", length=9)).digest,
        training(_shelf(tmp_path, broken=(1,), name="other"), model).digest,
    }
    assert len(digests) == 8
    assert training(shelf, model).digest == training(shelf, model, {"workers": 3, "broken": 0}).digest


def test_tokenizers_that_do_not_match(tmp_path, model):
    require_same_tokens(model, model)
    with pytest.raises(UsageError, match="tokenizers do not match: 'the text 0O1l'"):
        require_same_tokens(model, _model(tmp_path / "longer", length=9))
    require_vocabulary(model, 256)
    with pytest.raises(UsageError, match="the table has 50 rows"):
        require_vocabulary(model, 50)


def test_only_training_is_fed():
    from pydantic import ValidationError

    from compress.recipe.schema import Head

    told = {"version": 1, "name": "a", "model": {"source": "pocket-clip"}, "targets": ("x",), "policy": "p"}
    fed = {"source": "scenes", "samples": 4, "feeding": {"rendered": 0.0}}
    assert Head.model_validate({**told, "data": {"training": fed}}).data["training"].feeding.rendered == 0
    with pytest.raises(ValidationError, match="calibration has `feeding`"):
        Head.model_validate({**told, "data": {"calibration": fed}})
