"""What somebody without a key does to an artifact, and what a full disk or a hostile name does to its making."""

import errno
import multiprocessing
import os
import random
import resource
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "artifact"))
import artifact_sample as sample

from compress.artifact import layout, manifest
from compress.artifact.staging import Store
from compress.artifact.verify import verify
from compress.cli.main import main
from compress.core.errors import CompressError, IntegrityError

FILES = [
    "README.md",
    "config.json",
    "onnx/text_model_q4.onnx",
    "onnx/vision_model_q4.onnx",
    layout.GATE_REPORT,
    layout.JUNIT,
    layout.POLICY,
]


@pytest.fixture
def folder(tmp_path):
    return sample.settle(tmp_path)


def test_the_list_of_files_is_complete(folder):
    assert sorted(manifest.read(folder).paths) == sorted(FILES)


@pytest.mark.parametrize("path", FILES)
def test_one_flipped_bit_is_found_and_named(folder, capsys, path):
    content = bytearray((folder / path).read_bytes())
    where = random.Random(path).randrange(len(content))
    content[where] ^= 1
    (folder / path).write_bytes(content)
    assert main(["verify", str(folder)]) == 6
    assert f"changed: {path}" in capsys.readouterr().err


def test_no_flipped_bit_of_the_manifest_is_accepted(folder):
    path = folder / layout.MANIFEST
    good = path.read_bytes()
    for where in range(len(good)):
        bad = bytearray(good)
        bad[where] ^= 1 << (where % 8)
        path.write_bytes(bad)
        if bad.split() == good.split():  # white space for other white space says the same
            continue
        with pytest.raises(IntegrityError):
            verify(folder)


@pytest.mark.parametrize("path", ["model.onnx", ".hidden", ".git/config", "compress/.x", "onnx/__pycache__/a.pyc"])
def test_an_added_file(folder, path):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"extra: {path}"):
        verify(folder)


@pytest.mark.parametrize("path", [*FILES, layout.MANIFEST])
def test_a_removed_file(folder, path):
    (folder / path).unlink()
    with pytest.raises(IntegrityError, match=path):
        verify(folder)


@pytest.mark.parametrize("path", FILES)
def test_a_renamed_file(folder, path):
    (folder / path).rename(folder / "renamed")
    with pytest.raises(IntegrityError, match=r"(?s)missing: .*extra: renamed"):
        verify(folder)


@pytest.mark.parametrize("path", [*FILES, layout.MANIFEST])
def test_a_file_behind_a_symbolic_link(folder, path):
    (folder / path).rename(folder.parent / "outside")
    (folder / path).symlink_to(folder.parent / "outside")
    with pytest.raises(IntegrityError):
        verify(folder)


@pytest.mark.parametrize("path", [*FILES, layout.MANIFEST])
def test_a_file_with_another_name_outside(folder, path):
    os.link(folder / path, folder.parent / "outside")
    with pytest.raises(IntegrityError, match="hard link"):
        verify(folder)


@pytest.mark.parametrize("name", ["onnx", "compress"])
def test_a_folder_behind_a_symbolic_link(folder, name):
    (folder / name).rename(folder.parent / "outside")
    (folder / name).symlink_to(folder.parent / "outside")
    with pytest.raises(IntegrityError, match=rf"unsafe: {name} \(symbolic link\)"):
        verify(folder)


def test_the_gate_report_of_another_artifact(folder, tmp_path):
    other = sample.settle(tmp_path / "other", weights=b"these were gated")
    for path in (layout.GATE_REPORT, layout.JUNIT):
        (folder / path).write_bytes((other / path).read_bytes())
    sample.forge(folder)
    with pytest.raises(IntegrityError, match="digest"):
        verify(folder)


def test_other_weights_below_a_passed_gate_report(folder):
    (folder / "onnx/vision_model_q4.onnx").write_bytes(b"never gated")
    sample.forge(folder)
    with pytest.raises(IntegrityError, match="digest"):
        verify(folder)


def test_a_weaker_policy_below_a_passed_gate_report(folder):
    (folder / layout.POLICY).write_text(sample.POLICY.replace("0.02", "0.9"))
    sample.forge(folder)
    with pytest.raises(IntegrityError):
        verify(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 50_000, b"nul\0", b"\xff\xfe", b"a: &a [*a, *a]\n" * 3])
@pytest.mark.parametrize("path", [layout.MANIFEST, layout.GATE_REPORT, layout.JUNIT, layout.POLICY])
def test_garbage_is_refused_and_nothing_else(folder, path, content):
    (folder / path).write_bytes(content)
    if path != layout.MANIFEST:
        sample.forge(folder)
    with pytest.raises(IntegrityError):
        verify(folder)


def test_a_document_too_large_to_read(folder):
    with (folder / layout.MANIFEST).open("r+b") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(IntegrityError, match="at most"):
        verify(folder)


def test_hostile_names_write_nothing_outside(tmp_path):
    root = tmp_path / "a" / "root"
    root.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    hostile = ["../x", "../../x", "/tmp/x", "..", "a/../../x", "a\\..\\x", "~/x\0", "\n", "", "a/./b", "x/"]
    for name in hostile:
        with pytest.raises(CompressError), Store(root).stage(name):
            pass
    assert sorted(tmp_path.rglob("*")) == before
    with Store(root).stage("tiny") as staging:
        for name in hostile:
            with pytest.raises(IntegrityError):
                staging.write(name, b"")
        assert list(staging.folder.rglob("*")) == []
    assert [path for path in tmp_path.rglob("*") if root not in path.parents] == before


def _with_file_limit(root: Path, files: int, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with Store(root).stage("tiny") as staging:
            for i in range(files):
                staging.write(f"onnx/{i}", b"x" * 1000)
            sample.write_payload(staging, b"x" * 1000, None)
            sample.write_evidence(staging, "ungated", ())
            staging.settle("ungated")
    except OSError as error:
        os._exit(error.errno if error.filename else 1)
    os._exit(0)


@pytest.mark.parametrize(
    ("files", "limit", "code"),
    [
        pytest.param(1, 999, errno.EFBIG, id="at a weight file"),
        pytest.param(60, 1500, errno.EFBIG, id="at the manifest"),
        pytest.param(60, 1 << 20, 0, id="enough"),
    ],
)
def test_a_full_disk_publishes_nothing(tmp_path, files, limit, code):
    child = multiprocessing.get_context("fork").Process(target=_with_file_limit, args=(tmp_path, files, limit))
    child.start()
    child.join(30)
    assert child.exitcode == code
    assert (tmp_path / "ungated" / "tiny").exists() == (code == 0)
    assert [path.name for path in (tmp_path / "staging").iterdir()] == [".tiny.lock"]
