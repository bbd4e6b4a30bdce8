import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.artifact import layout, manifest
from compress.artifact.manifest import Entry, Manifest
from compress.core.errors import IntegrityError

ZERO = "0" * 64


def a_folder(root: Path) -> Path:
    (root / "onnx").mkdir()
    (root / "compress").mkdir()
    (root / "onnx" / "model.onnx").write_bytes(b"weights")
    (root / ".hidden").write_bytes(b"h")
    (root / "README.md").write_bytes(b"# card")
    (root / "compress" / "manifest.json").write_bytes(b"not listed")
    return root


def test_scan_lists_every_file_but_the_manifest_itself(tmp_path):
    entries = manifest.scan(a_folder(tmp_path)).entries
    assert [entry.path for entry in entries] == [".hidden", "README.md", "onnx/model.onnx"]
    assert entries[2] == Entry("onnx/model.onnx", 7, hashlib.sha256(b"weights").hexdigest())


def test_the_subject_is_the_digest_of_the_payload_entries_in_canonical_json():
    canonical = f'[{{"path":"a","sha256":"{ZERO}","size":1}},{{"path":"b/c","sha256":"{ZERO}","size":2}}]'
    made = Manifest((Entry("b/c", 2, ZERO), Entry("README.md", 3, ZERO), Entry("a", 1, ZERO)), "x")
    assert made.subject == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("path", sorted(layout.EVIDENCE))
def test_evidence_leaves_the_subject_alone(path):
    payload = Entry("a", 1, ZERO)
    assert Manifest((payload, Entry(path, 1, ZERO)), "x").subject == Manifest((payload,), "x").subject


@pytest.mark.parametrize("path", ["onnx/a.onnx", "readme.txt", layout.POLICY, layout.RECIPE, "compress/other.json"])
def test_everything_else_is_part_of_the_subject(path):
    payload = Entry("a", 1, ZERO)
    assert Manifest((payload, Entry(path, 1, ZERO)), "x").subject != Manifest((payload,), "x").subject


def test_the_subject_depends_neither_on_the_folder_nor_on_its_name(tmp_path):
    subjects = set()
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
        subjects.add(manifest.scan(a_folder(tmp_path / name)).subject)
    assert len(subjects) == 1


parts = st.text("abcdef-_.é", min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=3).map("/".join).filter(lambda path: path != layout.MANIFEST)
entries = st.lists(
    st.builds(Entry, paths, st.integers(0, 2**53 - 1), st.text("0123456789abcdef", min_size=64, max_size=64)),
    unique_by=lambda entry: entry.path,
    max_size=8,
)


@given(entries, st.randoms(use_true_random=False))
def test_order_does_not_matter(given_entries, random):
    shuffled = random.sample(given_entries, len(given_entries))
    assert Manifest(tuple(shuffled), "x").to_json() == Manifest(tuple(given_entries), "x").to_json()


@given(entries)
def test_what_is_written_is_read_back(given_entries):
    made = Manifest(tuple(given_entries), "x")
    assert Manifest.from_json(made.to_json()) == made


def text(**changes):
    data = json.loads(Manifest((Entry("a", 1, ZERO),), "x").to_json())
    return json.dumps({**data, **changes}).encode()


def file(**changes):
    return text(files=[{"path": "a", "size": 1, "sha256": ZERO, **changes}])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(text()[:-1], id="truncated"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff" + text(), id="no UTF-8"),
        pytest.param(text().decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(text(extra=1), id="unknown key"),
        pytest.param(file(mode=1), id="unknown key of a file"),
        pytest.param(text().replace(b'"name"', b'"name": "y", "name"'), id="duplicate key"),
        pytest.param(text(version=2), id="later version"),
        pytest.param(text(version=True), id="version bool"),
        pytest.param(text(subject=ZERO), id="other subject"),
        pytest.param(text(name="../x"), id="name leads out"),
        pytest.param(text(name=1), id="name number"),
        pytest.param(text(files={}), id="files object"),
        pytest.param(text(files=["a"]), id="file is text"),
        pytest.param(file(size=True), id="size bool"),
        pytest.param(file(size=1.0), id="size float"),
        pytest.param(file(size=-1), id="size negative"),
        pytest.param(file(size=2**60), id="size beyond JSON"),
        pytest.param(text(files=[{"path": "a", "size": "NaN", "sha256": ZERO}]).replace(b'"NaN"', b"NaN"), id="NaN"),
        pytest.param(file(sha256="0" * 63), id="hash short"),
        pytest.param(file(sha256="A" * 64), id="hash upper case"),
        pytest.param(file(sha256=ZERO + "\n"), id="hash with newline"),
        pytest.param(file(sha256=None), id="hash null"),
    ],
)
def test_a_malformed_manifest_is_refused(content):
    with pytest.raises(IntegrityError):
        Manifest.from_json(content)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "..",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\udcff",
        layout.MANIFEST,
    ],
    ids=ascii,
)
def test_a_path_that_is_not_safe_everywhere_is_refused(path):
    with pytest.raises(IntegrityError):
        Manifest((Entry(path, 1, ZERO),), "x")


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("Config.json", "config.json"), ("é", "e\u0301"), ("straße", "STRASSE")]
)
def test_paths_that_are_one_file_elsewhere_are_refused(one, other):
    with pytest.raises(IntegrityError, match="one file"):
        Manifest((Entry(one, 1, ZERO), Entry(other, 1, ZERO)), "x")


def test_no_difference_to_oneself(tmp_path):
    folder = a_folder(tmp_path)
    assert not manifest.differences(manifest.scan(folder), folder)


def test_every_difference_is_named(tmp_path):
    folder = a_folder(tmp_path)
    for name in ("gone", "edited", "longer", "linked"):
        (folder / name).write_bytes(b"1234")
    made = manifest.scan(folder)
    (folder / "gone").rename(folder / "renamed")
    (folder / "edited").write_bytes(b"1235")
    (folder / "longer").write_bytes(b"12345")
    (folder / "linked").unlink()
    (folder / "linked").symlink_to("edited")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"x")
    found = manifest.differences(made, folder)
    assert found.missing == ("gone", "linked")
    assert found.extra == (".git/config", "renamed")
    assert found.changed == ("edited", "longer")
    assert found.unsafe == ("linked (symbolic link)",)
    assert "changed: longer" in found.lines


def plant_symlink(folder):
    (folder / "planted").symlink_to("/etc/passwd")


def plant_linked_folder(folder):
    (folder / "planted").symlink_to(folder / "onnx")


def plant_hard_link(folder):
    os.link(folder / "README.md", folder / "planted")


def plant_fifo(folder):
    os.mkfifo(folder / "planted")


def plant_no_utf8(folder):
    Path(os.fsdecode(bytes(folder) + b"/planted\xff")).write_bytes(b"")


@pytest.mark.parametrize("plant", [plant_symlink, plant_linked_folder, plant_hard_link, plant_fifo, plant_no_utf8])
def test_what_is_no_plain_file_is_named_and_never_followed(tmp_path, plant):
    folder = a_folder(tmp_path)
    made = manifest.scan(folder)
    plant(folder)
    with pytest.raises(IntegrityError, match="planted"):
        manifest.scan(folder)
    assert any("planted" in line for line in manifest.differences(made, folder).unsafe)


def test_a_manifest_that_is_a_fifo_does_not_hang(tmp_path):
    (tmp_path / "compress").mkdir()
    os.mkfifo(tmp_path / layout.MANIFEST)
    with pytest.raises(IntegrityError, match="regular"):
        manifest.read(tmp_path)
