"""What a model was made with: its own data, and those of the pruned model that it was made from."""

import functools

import pytest

from compress.artifact import layout
from compress.data import fingerprint
from compress.data.album import Album
from compress.gates.outcomes import Unmeasured
from compress.models.structure import Model, Structure
from compress.pipeline import provenance
from compress.pipeline.options import Options
from compress.recipe.sources import NamedModel

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
