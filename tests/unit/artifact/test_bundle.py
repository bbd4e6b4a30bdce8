import base64
import json
import sys

import artifact_sample as sample
import pytest

from compress.artifact import bundle, keys, layout, manifest
from compress.artifact.attestation import check as check_attestation
from compress.artifact.signing import Signing
from compress.artifact.verify import check
from compress.cli.main import main
from compress.core.errors import EnvironmentFailure, IntegrityError, UsageError


def a_key(place, name="key", kind="p256", passphrase=None):
    keys.generate(place / name, kind, passphrase)
    return keys.read_private(place / name, passphrase)


def test_without_the_extra_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(EnvironmentFailure, match=r"compress-encoders\[signing\]"):
        bundle.opened(tmp_path / "key", a_key(tmp_path))
    made = sample.settle(tmp_path)
    assert main(["sign", str(made), "--key", str(tmp_path / "key"), "--bundle"]) == 5
    with pytest.raises(EnvironmentFailure):
        bundle.check(made, tmp_path / "key.pub")


def test_nothing_to_write_it_with(tmp_path):
    made = str(sample.settle(tmp_path))
    assert main(["run", "--recipe", "int4_clip", "--output", str(tmp_path / "out"), "--bundle"]) == 2
    assert main(["verify", made, "--bundle"]) == 2


@pytest.fixture
def model_signing():
    return pytest.importorskip("model_signing", reason="the extra [signing] is not installed")


@pytest.fixture
def folder(tmp_path, model_signing):
    signer = a_key(tmp_path)
    return sample.settle(tmp_path, signed=Signing(signer, bundler=bundle.opened(tmp_path / "key", signer)))


def public(tmp_path):
    return tmp_path / "key.pub"


def payload(folder):
    data = json.loads((folder / layout.BUNDLE).read_text())
    return json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))


def put(folder, statement):
    data = json.loads((folder / layout.BUNDLE).read_text())
    data["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / layout.BUNDLE).write_text(json.dumps(data))
    sample.forge(folder)


def test_it_lists_what_the_manifest_lists(folder, tmp_path):
    made = payload(folder)
    listed = {each["name"]: each["digest"] for each in made["predicate"]["resources"]}
    entries = {entry.path: entry.sha256 for entry in manifest.read(folder).entries}
    assert listed == {path: entries[path] for path in entries.keys() - {layout.BUNDLE, layout.ATTESTATIONS}}
    assert bundle.check(folder, public(tmp_path)).status == "ok"


def test_the_attestations_name_it_as_evidence(folder, tmp_path):
    key = keys.read_public(public(tmp_path))
    check_attestation(folder, check(folder), key).require("x")
    (folder / layout.BUNDLE).write_text((folder / layout.BUNDLE).read_text() + "\n")
    sample.forge(folder)
    with pytest.raises(IntegrityError, match=f"inputAttestations.*{layout.BUNDLE}"):
        check_attestation(folder, check(folder), key).require("x")


def test_it_leaves_the_subject_alone(folder, tmp_path):
    assert manifest.read(folder).subject == manifest.read(sample.settle(tmp_path / "plain")).subject


def test_the_library_verifies_it_without_us(folder, tmp_path, model_signing):
    """As its own command line does: the paths to leave out are in the bundle."""
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public(tmp_path))
    verifier.verify(folder, folder / layout.BUNDLE)
    (folder / "config.json").write_bytes(b"[]\n")
    with pytest.raises(ValueError, match=r"config\.json"):
        verifier.verify(folder, folder / layout.BUNDLE)


@pytest.mark.parametrize("path", [".gitattributes", ".github/x", "extra"])
def test_a_file_that_was_added_later(folder, tmp_path, path):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"")
    sample.forge(folder)
    found = bundle.check(folder, public(tmp_path))
    assert (found.status, path in found.detail) == ("mismatch", True)


def test_bytes_that_changed_later(folder, tmp_path):
    (folder / "config.json").write_bytes(b"[]\n")
    assert "model-signing refuses" in bundle.check(folder, public(tmp_path)).detail  # the manifest still lists the old
    sample.forge(folder)
    assert "config.json" in bundle.check(folder, public(tmp_path)).detail


def test_a_list_made_to_fit_is_not_signed(folder, tmp_path):
    (folder / "config.json").write_bytes(b"[]\n")
    sample.forge(folder)
    made = payload(folder)
    entries = {entry.path: entry.sha256 for entry in manifest.read(folder).entries}
    for each in made["predicate"]["resources"]:
        each["digest"] = entries[each["name"]]
    put(folder, made)
    found = bundle.check(folder, public(tmp_path))
    assert found.status == "mismatch"
    assert "model-signing refuses it: InvalidSignature" in found.detail


def test_another_key(folder, tmp_path):
    a_key(tmp_path, "other")
    assert bundle.check(folder, tmp_path / "other.pub").status == "mismatch"


def of(**changes):
    return lambda made: made["predicate"]["resources"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda made: made.update(predicateType="https://model_signing/Digests/v0.1"), id="old format"),
        pytest.param(lambda made: made.update(predicate=[]), id="predicate list"),
        pytest.param(lambda made: made["predicate"]["resources"].append(made["predicate"]["resources"][0]), id="twice"),
        pytest.param(of(algorithm="blake2"), id="other digest"),
        pytest.param(of(digest=None), id="no digest"),
        pytest.param(of(size=1), id="unknown key"),
    ],
)
def test_a_malformed_bundle_is_refused(folder, tmp_path, change):
    made = payload(folder)
    change(made)
    put(folder, made)
    with pytest.raises(IntegrityError):
        bundle.check(folder, public(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"dsseEnvelope": {"payload": "*"}}', b"\xff"])
def test_garbage_for_a_bundle(folder, tmp_path, content):
    (folder / layout.BUNDLE).write_bytes(content)
    sample.forge(folder)
    with pytest.raises(IntegrityError):
        bundle.check(folder, public(tmp_path))


def test_it_takes_a_key_on_a_curve(tmp_path, model_signing):
    signer = a_key(tmp_path, kind="ed25519")
    with pytest.raises(UsageError, match="--type p256"):
        bundle.opened(tmp_path / "key", signer)


def test_command_line(tmp_path, model_signing, capsys, monkeypatch):
    made, out = sample.settle(tmp_path / "made"), tmp_path / "out"
    a_key(tmp_path, passphrase=b"open sesame")
    sign = ["sign", str(made), "--key", str(tmp_path / "key"), "--output", str(out)]
    verify = ["verify", str(out / "released" / "tiny"), "--public-key", str(public(tmp_path)), "--bundle", "--json"]
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "open sesame")
    assert main(sign) == 0
    capsys.readouterr()
    assert main(verify) == 6
    assert json.loads(capsys.readouterr().out)["error"]["where"].endswith(layout.BUNDLE)
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "open sesame")
    assert main([*sign, "--bundle"]) == 8  # what is there is signed, and without a bundle
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "open sesame")
    assert main([*sign, "--bundle", "--replace"]) == 0
    capsys.readouterr()
    assert main(verify) == 0
    told = json.loads(capsys.readouterr().out)["signature"]["checks"][-1]
    assert (told["name"], told["status"]) == ("bundle", "ok")
