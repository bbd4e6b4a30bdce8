import os

import artifact_sample as sample
import pytest

from compress.artifact import manifest
from compress.artifact.staging import Store, write_file
from compress.artifact.verify import check, verify
from compress.core.errors import ConflictError, IntegrityError, UsageError


def staged(root):
    """What is left below staging/ but the lock file."""
    return [path.name for path in (root / "staging").iterdir() if path.name != ".tiny.lock"]


FAILED = sample.with_statuses("passed", "failed", "inconclusive")
INCONCLUSIVE = sample.with_statuses("passed", "passed", "inconclusive")


@pytest.mark.parametrize(
    ("status", "findings", "place"),
    [
        ("passed", sample.FINDINGS, "released/tiny"),
        ("failed", FAILED, "blocked/tiny-{}"),
        ("inconclusive", INCONCLUSIVE, "blocked/tiny-{}"),
        ("ungated", (), "ungated/tiny"),
    ],
)
def test_a_verdict_leads_to_its_folder(tmp_path, status, findings, place):
    target = sample.settle(tmp_path, status, findings)
    made = manifest.read(target)
    assert target == tmp_path / place.format(made.subject[:8])
    assert not manifest.differences(made, target)
    assert made.name == "tiny"
    assert staged(tmp_path) == []


def test_nothing_is_settled_against_its_own_gate_report(tmp_path):
    with Store(tmp_path).stage("tiny") as staging:
        sample.write_payload(staging)
        sample.write_evidence(staging, "failed", FAILED)
        with pytest.raises(IntegrityError, match="failed"):
            staging.settle("passed")
    assert not (tmp_path / "released").exists()


def test_a_payload_changed_after_it_was_gated_is_not_released(tmp_path):
    with Store(tmp_path).stage("tiny") as staging:
        sample.write_payload(staging)
        sample.write_evidence(staging)
        staging.write("config.json", b'{"changed": true}')
        with pytest.raises(IntegrityError, match="digest"):
            staging.settle("passed")
    assert not (tmp_path / "released").exists()


@pytest.mark.parametrize("status", ["passed", "ungated"])
def test_the_same_payload_again_keeps_what_is_there(tmp_path, status):
    findings = sample.FINDINGS if status == "passed" else ()
    first = sample.settle(tmp_path, status, findings)
    inode = first.stat().st_ino
    assert sample.settle(tmp_path, status, findings) == first
    assert first.stat().st_ino == inode
    assert staged(tmp_path) == []


def test_another_payload_needs_replace(tmp_path):
    sample.settle(tmp_path)
    with pytest.raises(ConflictError, match="--replace"):
        sample.settle(tmp_path, weights=b"new")
    assert (tmp_path / "released/tiny/onnx/vision_model_q4.onnx").read_bytes() == b"w" * 99
    target = sample.settle(tmp_path, weights=b"new", replace=True)
    assert (target / "onnx/vision_model_q4.onnx").read_bytes() == b"new"
    verify(target)
    assert staged(tmp_path) == []


def test_a_damaged_artifact_is_not_taken_for_the_same(tmp_path):
    (sample.settle(tmp_path) / "config.json").write_bytes(b"{ }")
    with pytest.raises(ConflictError):
        sample.settle(tmp_path)
    verify(sample.settle(tmp_path, replace=True))


def test_a_blocked_artifact_is_replaced_by_the_next_with_its_digest(tmp_path):
    first = sample.settle(tmp_path, "failed", FAILED)
    second = sample.settle(tmp_path, "inconclusive", INCONCLUSIVE)
    assert first == second
    assert check(second).status == "inconclusive"
    assert staged(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    def run():
        with Store(tmp_path).stage("tiny") as staging:
            sample.write_payload(staging)
            raise error

    with pytest.raises(error):
        run()
    assert staged(tmp_path) == []


def test_a_run_that_never_settles_leaves_nothing(tmp_path):
    with Store(tmp_path).stage("tiny") as staging:
        sample.write_payload(staging)
    assert staged(tmp_path) == []


def test_one_name_is_built_once_at_a_time(tmp_path):
    with Store(tmp_path).stage("tiny"):
        with pytest.raises(ConflictError, match="another run"), Store(tmp_path).stage("tiny"):
            pass
        with Store(tmp_path).stage("other"):
            pass
    with Store(tmp_path).stage("tiny"):
        pass


def test_stale_staging_is_removed_but_only_that_of_the_name(tmp_path):
    home = tmp_path / "staging"
    for name in (
        "tiny-0123abcd/onnx",
        "tiny-0123abcd.released",
        "tiny-0123abcd.blocked",
        "tiny-other-0123abcd",
        "tiny-0123abcd-0123abcd",
    ):
        (home / name).mkdir(parents=True)
    (home / "tiny-00000000").symlink_to(tmp_path)
    (tmp_path / "released" / "tiny").mkdir(parents=True)
    with Store(tmp_path).stage("tiny"):
        pass
    assert sorted(staged(tmp_path)) == ["tiny-0123abcd-0123abcd", "tiny-other-0123abcd"]
    assert (tmp_path / "released" / "tiny").is_dir()


def test_what_was_set_aside_comes_back_when_its_replacement_never_came(tmp_path):
    target = sample.settle(tmp_path)
    target.rename(tmp_path / "staging" / "tiny-0123abcd.released")
    with Store(tmp_path).stage("tiny"):
        verify(target)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "a\0", "a\n", "a..b", "x" * 101]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(UsageError), Store(tmp_path / "root").stage(name):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\0", ""])
def test_a_file_that_leads_elsewhere_is_refused(tmp_path, path):
    with Store(tmp_path).stage("tiny") as staging, pytest.raises(IntegrityError):
        staging.write(path, b"")


def test_writing_replaces_whole_files_and_leaves_no_draft(tmp_path):
    write_file(tmp_path / "a", b"1")
    write_file(tmp_path / "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"2")]


def test_a_failed_write_keeps_the_old_file_and_names_it(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "a", b"1")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        write_file(tmp_path / "a", b"2")
    assert raised.value.filename == str(tmp_path / "a")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"1")]
