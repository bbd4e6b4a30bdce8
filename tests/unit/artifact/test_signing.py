import json
import os

import artifact_sample as sample
import pytest

from compress.artifact import attestation, keys, layout, manifest
from compress.artifact.signing import Signing, settle_signed
from compress.artifact.staging import Store
from compress.artifact.verify import check
from compress.cli.main import main
from compress.core.errors import ConflictError, IntegrityError

FAILED = sample.with_statuses("passed", "failed", "inconclusive")


def a_key(place, name="key"):
    keys.generate(place / name)
    return Signing(keys.read_private(place / name))


@pytest.fixture
def signing(tmp_path):
    return a_key(tmp_path)


def requires(folder, signing, resource=None):
    attestation.check(folder, check(folder), signing.signer.public_key, resource).require("x")


def test_a_signature_leaves_the_subject_alone(tmp_path, signing):
    plain, signed = sample.settle(tmp_path / "a"), sample.settle(tmp_path / "b", signed=signing)
    assert manifest.read(plain).subject == manifest.read(signed).subject
    assert manifest.read(signed).paths - manifest.read(plain).paths == {layout.ATTESTATIONS}


def test_a_signed_run_does_not_settle_for_an_unsigned_artifact(tmp_path, signing):
    target = sample.settle(tmp_path)
    with pytest.raises(ConflictError, match=r"not signed like this\n.*--replace"):
        sample.settle(tmp_path, signed=signing)
    assert not (target / layout.ATTESTATIONS).exists()
    requires(sample.settle(tmp_path, signed=signing, replace=True), signing)


@pytest.mark.parametrize("other", ["key", "resource"])
def test_nor_for_one_that_is_signed_otherwise(tmp_path, signing, other):
    sample.settle(tmp_path, signed=signing)
    another = a_key(tmp_path, "other") if other == "key" else Signing(signing.signer, "https://example.com/tiny")
    with pytest.raises(ConflictError, match="not signed like this"):
        sample.settle(tmp_path, signed=another)
    requires(sample.settle(tmp_path, signed=another, replace=True), another, another.resource)


def test_the_same_again_keeps_what_is_there(tmp_path, signing):
    first = sample.settle(tmp_path, signed=signing)
    inode = first.stat().st_ino
    assert sample.settle(tmp_path, signed=signing) == first
    assert sample.settle(tmp_path) == first  # who asks for no signature has nothing against one
    assert first.stat().st_ino == inode
    requires(first, signing)


@pytest.mark.parametrize(
    ("status", "findings", "place"),
    [
        ("passed", sample.FINDINGS, "released/tiny"),
        ("failed", FAILED, "blocked/tiny-{}"),
        ("inconclusive", sample.with_statuses("passed", "passed", "inconclusive"), "blocked/tiny-{}"),
        ("ungated", (), "ungated/tiny"),
    ],
)
def test_an_artifact_made_elsewhere_is_signed_and_settled_by_its_verdict(tmp_path, signing, status, findings, place):
    made = sample.settle(tmp_path / "elsewhere", status, findings).rename(tmp_path / "received")
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    settled, report = settle_signed(made, Store(tmp_path), signing)
    assert settled == tmp_path / place.format(report.subject[:8])
    assert report.status == status
    requires(settled, signing)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert not manifest.differences(manifest.read(made), made)
    (tmp_path / "staging" / ".tiny.lock").unlink(missing_ok=True)
    assert list((tmp_path / "staging").iterdir()) == []


def test_it_is_signed_where_it_lies(tmp_path, signing):
    target = sample.settle(tmp_path)
    with pytest.raises(ConflictError, match="--replace"):
        settle_signed(target, Store(tmp_path), signing)
    assert settle_signed(target, Store(tmp_path), signing, replace=True)[0] == target
    requires(target, signing)
    blocked = sample.settle(tmp_path, "failed", FAILED)
    assert settle_signed(blocked, Store(tmp_path), signing)[0] == blocked
    requires(blocked, signing)


def test_a_new_key_takes_over(tmp_path, signing):
    target = sample.settle(tmp_path, signed=signing)
    new = a_key(tmp_path, "new")
    settle_signed(target, Store(tmp_path), new, replace=True)
    requires(target, new)
    with pytest.raises(IntegrityError):
        requires(target, signing)


def test_what_is_damaged_is_not_signed(tmp_path, signing):
    target = sample.settle(tmp_path)
    (target / "config.json").write_bytes(b"[]\n")
    with pytest.raises(IntegrityError, match=r"changed: config\.json"):
        settle_signed(target, Store(tmp_path / "out"), signing)
    sample.forge(target)
    with pytest.raises(IntegrityError, match="digest"):
        settle_signed(target, Store(tmp_path / "out"), signing)
    assert not (tmp_path / "out" / "released").exists()


def test_what_changes_while_it_is_copied_is_not_signed(tmp_path, signing, monkeypatch):
    target = sample.settle(tmp_path)
    checked = check(target)
    monkeypatch.setattr("compress.artifact.verify.check", lambda folder: checked)
    (target / "README.md").write_bytes(b"# Tiny\n")
    with pytest.raises(IntegrityError, match="while it was copied"):
        settle_signed(target, Store(tmp_path / "out"), signing)


def test_the_private_key_is_nowhere(tmp_path, signing, capsys):
    made, secret = sample.settle(tmp_path), (tmp_path / "key").read_text().splitlines()[1]
    words = ["--key", str(tmp_path / "key"), "--output", str(tmp_path / "out"), "--json"]
    assert main(["sign", str(made), *words]) == 0
    shown = "".join(capsys.readouterr())
    raw = signing.signer._private_key.private_bytes_raw()
    assert secret not in shown + repr(signing)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.encode() not in content
            assert raw not in content
            assert raw.hex().encode() not in content


@pytest.mark.parametrize(
    ("status", "findings", "code"), [("passed", sample.FINDINGS, 0), ("failed", FAILED, 3), ("ungated", (), 4)]
)
def test_command_line(tmp_path, signing, capsys, status, findings, code):
    made = sample.settle(tmp_path / "made", status, findings)
    words = ["--key", str(tmp_path / "key"), "--output", str(tmp_path / "out"), "--resource-uri", "x:tiny"]
    assert main(["sign", str(made), *words, "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["exit_code"], told["key_id"]) == (status, code, signing.key_id)
    key = ["--public-key", str(tmp_path / "key.pub")]
    assert main(["verify", told["path"], *key, "--resource-uri", "x:tiny"]) == code
    assert main(["verify", told["path"], *key]) == 6
    assert main(["sign", str(made), *words]) == code
    assert f"signed by key {signing.key_id}" in capsys.readouterr().out


def test_command_line_with_a_passphrase(tmp_path, capsys, monkeypatch):
    keys.generate(tmp_path / "closed", passphrase=b"open sesame")
    made = sample.settle(tmp_path / "made")
    words = ["sign", str(made), "--key", str(tmp_path / "closed"), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "COMPRESS_KEY_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "wrong")
    assert main(words) == 2
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "open sesame")
    assert main(words) == 0
    assert "COMPRESS_KEY_PASSPHRASE" not in os.environ  # no child process will see it
    shown = capsys.readouterr()
    assert "sesame" not in shown.out + shown.err


def test_a_run_opens_its_key_before_anything_else(tmp_path, capsys):
    (tmp_path / "key").write_bytes(b"no key")
    words = ["--recipe", "int4_clip", "--output", str(tmp_path / "out")]
    assert main(["run", *words, "--sign", str(tmp_path / "key")]) == 2
    assert "not a private key" in capsys.readouterr().err
    assert main(["run", *words, "--resource-uri", "x:y"]) == 2
    assert "--sign" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
