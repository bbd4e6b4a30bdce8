"""What a model was made with: its own data, and those of the pruned model that it was made from."""

import functools
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from compress.artifact import layout
from compress.data import fingerprint, rendered
from compress.data.album import Album
from compress.data.items import Request
from compress.evals import suite
from compress.gates.outcomes import Unmeasured
from compress.models.structure import Model, Structure
from compress.pipeline import provenance
from compress.pipeline.options import Options
from compress.recipe.sources import Columns, DataSource, NamedModel
from compress.recipe.training import Feeding

RECIPE = """
version: 1
name: {name}
model: {{source: {source}}}
policy: none
reason: a test
data:
  calibration: {{source: scenes, kind: shapes, split: {split}, samples: 4}}
steps: []
targets: [onnxruntime-cpu]
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write what an artifact of a pruned model says of its making."""

    def write(name, source, split, origin="./original"):
        folder = tmp_path / name
        (folder / "compress").mkdir(parents=True)
        (folder / layout.RECIPE).write_text(RECIPE.format(name=folder.name, source=source, split=split))
        told = Structure(version=1, architecture="CLIPModel", origin=Model(source=origin))
        (folder / layout.STRUCTURE).write_bytes(told.to_bytes())
        return folder

    monkeypatch.chdir(tmp_path)
    return write


def seen_by(folder, *roots):
    seen = provenance.seen_by(folder, Options(data_roots=roots))
    return seen if isinstance(seen, Unmeasured) else functools.reduce(fingerprint.joined, seen.chunks())


def test_what_a_pruned_model_was_shown_counts_for_what_is_made_from_it(made):
    parent = made("parent", "./original", "release")
    child = made("child", "./parent", "calibration")
    grandchild = made("grandchild", "./child", "development")
    assert len(seen_by(parent).ids) == 4
    assert set(seen_by(parent).exact) < set(seen_by(child).exact) < set(seen_by(grandchild).exact)
    assert len(seen_by(grandchild).ids) == len(seen_by(grandchild).small) == 12


def test_the_same_when_it_is_made(made):
    parent = made("parent", "./original", "release")
    own = seen_by(made("other", "./original", "calibration"))
    album = Album((own,))
    both = provenance.with_parent(album, NamedModel(source=str(parent)), Options())
    assert {mark for part in both.chunks() for mark in part.exact} == {*own.exact, *seen_by(parent).exact}
    assert provenance.with_parent(album, NamedModel(source="pocket-clip"), Options()) is album


def test_nobody_knows_where_the_pruned_model_is_not_here(made):
    child = made("child", "./parent", "calibration")
    assert "nobody knows what ./parent was calibrated on" in seen_by(child).reason
    parent = made("below/parent", "./original", "release")
    assert len(seen_by(child, parent.parent).ids) == 8
    (parent / layout.RECIPE).unlink()
    assert isinstance(seen_by(child, parent.parent), Unmeasured)


def shard(folder, streaming):
    """A recipe's data that train on a shard whose second of three images is the release split's fourth scene."""
    planted = rendered.load(rendered.Rendered(kinds=("pins",)), Request("release", 8)).images[3]
    pictures = [Image.new("RGB", (64, 64), (9, 9, at)) for at in (0, 200)]
    with tarfile.open(folder / "a.tar", "w") as tar:
        for at, picture in enumerate((pictures[0], planted.resize((100, 100)), pictures[1])):
            held = io.BytesIO()
            picture.save(held, "PNG")
            told = tarfile.TarInfo(f"{at}.png")
            told.size = held.tell()
            held.seek(0)
            tar.addfile(told, held)
    return {"training": DataSource(source=str(folder), feeding=Feeding(streaming=streaming))}


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_trained_on_is_found_among_what_is_measured(tmp_path, streaming):
    (tmp_path / "shards").mkdir()
    data = shard(tmp_path / "shards", streaming)
    options = Options(output=tmp_path / "out")
    (part,) = provenance.seen(data, options).chunks()
    assert part.ids == ("training/0", "training/1", "training/2")
    measured = rendered.load(rendered.Rendered(kinds=("pins",)), Request("release", 8))
    (match,) = fingerprint.matches(part, fingerprint.of_images(measured.ids, measured.images))
    assert (match.left, match.right) == ("training/1", measured.ids[3])
    assert list((tmp_path / "out" / "cache" / "fingerprints").iterdir())


def test_a_task_that_holds_a_training_image_is_not_measured(tmp_path):
    from types import SimpleNamespace

    (tmp_path / "shards").mkdir()
    seen = provenance.seen(shard(tmp_path / "shards", True), Options(output=tmp_path / "out"))
    asked = SimpleNamespace(split="release", items=8, items_per_slice=None, task=None)
    policy = SimpleNamespace(tasks={"pins": asked}, gates=())
    got = suite.measure(policy, Path("old"), Path("new"), suite.Options(seen=seen))
    assert "1 of 8 items were seen by a step" in got["pins.accuracy"].reason
    assert got["pins.accuracy"].reason.endswith("is training/1")


@pytest.mark.parametrize(("split", "count"), [("train", 0), ("development", 4), ("release", 4), (None, 0)])
def test_scenes_are_looked_for_where_a_policy_may_measure_them(tmp_path, split, count):
    data = {"training": DataSource(source="scenes", kind="pins", split=split, samples=4)}
    ids = [each for part in provenance.seen(data, Options(output=tmp_path)).chunks() for each in part.ids]
    assert len(ids) == count


def test_captions_alone_show_no_images(tmp_path):
    (tmp_path / "labels.jsonl").write_text('{"text": "a"}\n')
    told = DataSource(source=str(tmp_path), columns=Columns(text="text"), feeding=Feeding(use="captions"))
    assert not list(provenance.seen({"training": told}, Options(output=tmp_path / "out")).chunks())
