import hashlib
import json
import stat
import subprocess
from base64 import b64encode, urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from compress.artifact import keys
from compress.cli.main import main
from compress.core.errors import ConflictError, UsageError

SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before the 32 bytes of an ed25519 key in DER


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("kind", keys.KINDS)
def test_a_pair_signs_and_verifies(tmp_path, kind):
    key_id = keys.generate(tmp_path / "release", kind)
    signer, public = keys.read_private(tmp_path / "release"), keys.read_public(tmp_path / "release.pub")
    assert signer.public_key.keyid == public.keyid == key_id
    public.verify_signature(signer.sign(b"text"), b"text")


def test_the_key_id_is_the_digest_of_the_public_key_in_der(tmp_path):
    key_id = keys.generate(tmp_path / "release")
    (line,) = (tmp_path / "release.pub").read_text().splitlines()[1:-1]
    raw = bytes.fromhex(keys.read_public(tmp_path / "release.pub").keyval["public"])
    assert line == b64encode(SPKI + raw).decode()
    assert key_id == hashlib.sha256(SPKI + raw).hexdigest()


def test_a_digest_as_a_uri():
    sha256 = hashlib.sha256(b"Hello World!").hexdigest()
    assert keys.named_information(sha256) == "ni:///sha-256;f4OxZX_x_FO5LcGBSKHWXfwtSx-j1ncoSt3SABJtkGk"  # RFC 6920
    assert urlsafe_b64decode(keys.named_information(sha256).split(";")[1] + "=").hex() == sha256


def test_the_private_key_is_for_its_owner_alone(tmp_path):
    keys.generate(tmp_path / "release")
    assert stat.S_IMODE((tmp_path / "release").stat().st_mode) == 0o600


def test_a_passphrase_is_needed_to_open_what_it_closed(tmp_path):
    keys.generate(tmp_path / "release", passphrase=b"open sesame")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "release").read_bytes()
    keys.read_private(tmp_path / "release", b"open sesame")
    with pytest.raises(UsageError, match="COMPRESS_KEY_PASSPHRASE"):
        keys.read_private(tmp_path / "release")
    with pytest.raises(UsageError, match="passphrase is another"):
        keys.read_private(tmp_path / "release", b"open says me")


def test_a_passphrase_does_no_harm_to_a_key_without_one(tmp_path):
    keys.generate(tmp_path / "release")
    keys.read_private(tmp_path / "release", b"for another key")


@pytest.mark.parametrize("taken", ["release", "release.pub"])
def test_nothing_is_overwritten(tmp_path, taken):
    (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(ConflictError, match="never overwritten"):
        keys.generate(tmp_path / "release")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(taken, b"mine")]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "release").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConflictError):
        keys.generate(tmp_path / "release")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="binary"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="no key in it"),
        pytest.param(pem(ec.generate_private_key(ec.SECP384R1())), id="another curve"),
        pytest.param(pem(rsa.generate_private_key(65537, 2048)), id="RSA"),
    ],
)
def test_what_is_no_key_of_a_known_kind_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError):
        keys.read_private(tmp_path / "key")
    with pytest.raises(UsageError):
        keys.read_public(tmp_path / "key")


def test_a_public_key_of_another_kind_is_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pub").write_bytes(other.public_bytes(serialization.Encoding.PEM, spki))
    with pytest.raises(UsageError, match="P-256"):
        keys.read_public(tmp_path / "key.pub")


def test_the_halves_are_not_taken_for_each_other(tmp_path):
    keys.generate(tmp_path / "release")
    with pytest.raises(UsageError, match=r"takes only the public one.*\n.*KEY\.pub"):
        keys.read_public(tmp_path / "release")
    with pytest.raises(UsageError, match="not a private key"):
        keys.read_private(tmp_path / "release.pub")


def test_keygen(tmp_path, capsys, monkeypatch):
    out = tmp_path / "release"
    assert main(["keygen", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["key_id"] == keys.read_public(out.with_name("release.pub")).keyid
    assert (told["private_key"], told["public_key"]) == (str(out), f"{out}.pub")
    assert out.read_text().splitlines()[1] not in shown.out + shown.err
    assert main(["keygen", str(out)]) == 8
    assert main(["keygen", str(tmp_path / "absent" / "release")]) == 2
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "open sesame")
    assert main(["keygen", str(tmp_path / "second")]) == 0
    assert "sesame" not in "".join(capsys.readouterr())
    keys.read_private(tmp_path / "second", b"open sesame")
    monkeypatch.setenv("COMPRESS_KEY_PASSPHRASE", "")
    assert main(["keygen", str(tmp_path / "third")]) == 2
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("kind", keys.KINDS)
def test_openssl_reads_the_pair(tmp_path, kind):
    keys.generate(tmp_path / "release", kind)
    try:
        ran = subprocess.run(
            ["openssl", "pkey", "-in", tmp_path / "release", "-pubout"], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert ran.stdout == (tmp_path / "release.pub").read_bytes()
